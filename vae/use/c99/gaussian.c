/* -log p(x|z) of a pixel: N(mean, sigma squared). */
static float surprise(float x, float parameter)
{
    float distance = (x - pixel(parameter)) / $sigma;
    return 0.5f * distance * distance + $constant;
}
