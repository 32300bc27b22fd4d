typedef struct {
    int channels, height, width, outputs, rows, columns;
    int kernel_height, kernel_width, stride_down, stride_across, padding_down, padding_across;
} sizes;
