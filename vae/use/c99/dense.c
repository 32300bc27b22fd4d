static void $name(const $reads *x, $writes *y, int inputs, int outputs, const $weights *weight, ${scales}const float *bias)
{
    for (int o = 0; o < outputs; o++, weight += inputs) {
        $sums sum = 0;
        for (int i = 0; i < inputs; i++)
            sum += weight[i] * x[i];
        float value = $value;
        y[o] = $ending;
    }
}
