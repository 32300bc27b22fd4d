static void $name(const $reads *x, $writes *y, sizes s, const $weights *weight, ${scales}const float *bias)
{
    for (int o = 0; o < s.outputs; o++, weight += s.channels * s.kernel_height * s.kernel_width)
        for (int row = 0; row < s.rows; row++)
            for (int column = 0; column < s.columns; column++) {
                const $weights *w = weight;
                const $reads *plane = x;
                $sums sum = 0;
                for (int c = 0; c < s.channels; c++, plane += s.height * s.width)
                    for (int down = 0; down < s.kernel_height; down++, w += s.kernel_width) {
                        int i = ${kind}_from(row, down, s.stride_down, s.padding_down, s.height);
                        for (int across = 0; i >= 0 && across < s.kernel_width; across++) {
                            int j = ${kind}_from(column, across, s.stride_across, s.padding_across, s.width);
                            if (j >= 0)
                                sum += w[across] * plane[i * s.width + j];
                        }
                    }
                float value = $value;
                *y++ = $ending;
            }
}
