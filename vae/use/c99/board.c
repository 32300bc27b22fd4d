/* Runs a model on an emulated Cortex-M board: what it makes of the images in images.bin, and how many instructions each
 * call takes. Under `-icount shift=0` an instruction is a nanosecond, and the board's timer of 25 MHz and 32 bits ticks
 * every 40th. */
#include "$header"

#include <stdio.h>
#include <stdlib.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define TIMER_CONTROL REGISTER(0x40000000)
#define TIMER REGISTER(0x40000004)
#define TIMER_RELOAD REGISTER(0x40000008)
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

static unsigned long long ticked(uint32_t from)
{
    return INSTRUCTIONS_PER_TICK * (unsigned long long)(from - TIMER);
}

int main(void)
{
    static uint8_t image[VAE_PIXELS], decoded[VAE_PIXELS];
    float mean[VAE_LATENTS], log_var[VAE_LATENTS];
    FILE *images = fopen("images.bin", "rb");
    TIMER_RELOAD = TIMER = 0xFFFFFFFF;
    TIMER_CONTROL = 1; /* on */
    while (images && fread(image, 1, VAE_PIXELS, images) == VAE_PIXELS) {
        uint32_t start = TIMER;
        vae_encode(image, mean, log_var);
        unsigned long long encoding = ticked(start);
        start = TIMER;
        vae_decode(mean, decoded);
        unsigned long long decoding = ticked(start);
        start = TIMER;
        float score = vae_score(image, NULL);
        unsigned long long scoring = ticked(start);
        printf("%llu %llu %llu %.9g", encoding, decoding, scoring, (double)score);
        for (int i = 0; i < VAE_LATENTS; i++)
            printf(" %.9g %.9g", (double)mean[i], (double)log_var[i]);
        for (int i = 0; i < VAE_PIXELS; i++)
            printf(" %d", decoded[i]);
        printf("\n");
    }
    return 0;
}
