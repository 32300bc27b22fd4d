/* Runs a model on an emulated Cortex-M board: what it makes of the images in images.bin, and how many instructions each
 * call takes. Under `-icount shift=0` an instruction is a nanosecond, and the timer of 25 MHz ticks every 40th. */
#include "$header"

#include <stdio.h>
#include <stdlib.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define TIMER_CONTROL REGISTER(0xE000E010)
#define TIMER_RELOAD REGISTER(0xE000E014)
#define TIMER REGISTER(0xE000E018)
#define COPROCESSORS REGISTER(0xE000ED88)
#define INSTRUCTIONS_PER_TICK 40

void _start(void);

void reset(void)
{
    COPROCESSORS |= 0xF00000; /* turns the floating-point unit on */
    _start();
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))0x20400000, reset, abort, abort, abort, abort, abort};

static unsigned long ticked(uint32_t from)
{
    return INSTRUCTIONS_PER_TICK * (unsigned long)((from - TIMER) & 0xFFFFFF);
}

int main(void)
{
    static uint8_t image[VAE_PIXELS], decoded[VAE_PIXELS];
    float mean[VAE_LATENTS], log_var[VAE_LATENTS];
    FILE *images = fopen("images.bin", "rb");
    TIMER_RELOAD = 0xFFFFFF;
    TIMER_CONTROL = 5; /* on, by the processor's clock */
    while (images && fread(image, 1, VAE_PIXELS, images) == VAE_PIXELS) {
        uint32_t start = TIMER;
        vae_encode(image, mean, log_var);
        unsigned long encoding = ticked(start);
        start = TIMER;
        vae_decode(mean, decoded);
        unsigned long decoding = ticked(start);
        start = TIMER;
        float score = vae_score(image, NULL);
        unsigned long scoring = ticked(start);
        printf("%lu %lu %lu %.9g", encoding, decoding, scoring, (double)score);
        for (int i = 0; i < VAE_LATENTS; i++)
            printf(" %.9g %.9g", (double)mean[i], (double)log_var[i]);
        for (int i = 0; i < VAE_PIXELS; i++)
            printf(" %d", decoded[i]);
        printf("\n");
    }
    return 0;
}
