/* The row or column that a transposed convolution's output reads through this part of the kernel, or -1. */
static int transposed_from(int place, int part, int stride, int padding, int most)
{
    int reached = place + padding - part;
    return reached < 0 || reached % stride || reached / stride >= most ? -1 : reached / stride;
}
