/* -log p(x|z) of a pixel: binary cross-entropy. */
static float surprise(float x, float parameter)
{
    float largest = parameter > 0 ? parameter : 0;
    return largest - parameter * x + log1pf(expf(-fabsf(parameter)));
}
