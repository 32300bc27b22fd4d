static void $name(const $reads *x, $writes *y, sizes s, const $weights *weight, ${scales}const float *bias)
{
    int plane = s.height * s.width, kernel = s.kernel_height * s.kernel_width;
    for (int o = 0; o < s.outputs; o++, weight += s.channels * kernel)
        for (int row = 0; row < s.rows; row++)
            for (int column = 0; column < s.columns; column++) {
                $sums sum = 0;
                for (int down = 0; down < s.kernel_height; down++) {
                    int i = ${kind}_from(row, down, s.stride_down, s.padding_down, s.height);
                    for (int across = 0; i >= 0 && across < s.kernel_width; across++) {
                        int j = ${kind}_from(column, across, s.stride_across, s.padding_across, s.width);
                        if (j < 0)
                            continue;
                        const $weights *w = weight + down * s.kernel_width + across;
                        const $reads *from = x + i * s.width + j;
                        for (int c = 0; c < s.channels; c++) /* innermost, because finding the place takes longer */
                            sum += w[c * kernel] * from[c * plane];
                    }
                }
                float value = $value;
                *y++ = $ending;
            }
}
