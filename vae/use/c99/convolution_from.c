/* The row or column that a convolution's output reads through this part of the kernel, or -1. */
static int convolution_from(int place, int part, int stride, int padding, int most)
{
    int from = place * stride + part - padding;
    return from < most ? from : -1;
}
