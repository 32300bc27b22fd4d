/* $title */
#include "$header"

#include <math.h>

$constants

static float parameters_of_pixels[VAE_PIXELS];
$buffers

/* Rounded and kept within a byte; not a number is 0. */
static uint8_t byte(float value)
{
    return !(value > 0) ? 0 : value < 255 ? (uint8_t)(value + 0.5f) : 255;
}

$kernels

void vae_encode(const uint8_t image[VAE_PIXELS], float mean[VAE_LATENTS], float log_var[VAE_LATENTS])
{
$encode
}

void vae_parameters(const float z[VAE_LATENTS], float parameters[VAE_PIXELS])
{
$parameters
}

static float pixel(float parameter)
{
    return 1 / (1 + expf(-parameter));
}

void vae_decode(const float z[VAE_LATENTS], uint8_t image[VAE_PIXELS])
{
    vae_parameters(z, parameters_of_pixels);
    for (int i = 0; i < VAE_PIXELS; i++)
        image[i] = byte(255 * pixel(parameters_of_pixels[i]));
}

/* Philox4x32-10 (Salmon et al., 2011): four random numbers for each counter. */
static void philox(uint32_t counter[4], uint32_t key_0, uint32_t key_1)
{
    for (int round = 0; round < 10; round++, key_0 += 0x9E3779B9, key_1 += 0xBB67AE85) {
        uint64_t a = (uint64_t)0xD2511F53 * counter[0], b = (uint64_t)0xCD9E8D57 * counter[2];
        counter[0] = (uint32_t)(b >> 32) ^ counter[1] ^ key_0;
        counter[1] = (uint32_t)b;
        counter[2] = (uint32_t)(a >> 32) ^ counter[3] ^ key_1;
        counter[3] = (uint32_t)a;
    }
}

void vae_noise(uint32_t seed, uint32_t index, float noise[VAE_LATENTS])
{
    uint32_t drawn[4] = {0};
    for (uint32_t i = 0; i < VAE_LATENTS; i += 2) {
        if (i % 4 == 0) {
            drawn[0] = index, drawn[1] = i / 4, drawn[2] = 0, drawn[3] = 0;
            philox(drawn, seed, 0);
        }
        /* In the middle of one of 2^24 steps from 0 to 1: of 0 there is no logarithm. */
        float u = ((float)(drawn[i % 4] >> 8) + 0.5f) / 16777216, v = (float)(drawn[i % 4 + 1] >> 8) / 16777216;
        float radius = sqrtf(-2 * logf(u)), angle = 6.2831853f * v;
        noise[i] = radius * cosf(angle);
        if (i + 1 < VAE_LATENTS)
            noise[i + 1] = radius * sinf(angle);
    }
}

void vae_sample(uint32_t seed, uint32_t index, float z[VAE_LATENTS])
{
    float noise[VAE_LATENTS];
    vae_noise(seed, index, noise);
    for (int i = 0; i < VAE_LATENTS; i++) {
        z[i] = prior_mean[i];
        for (int j = 0; j <= i; j++)
            z[i] += prior_factor[i * VAE_LATENTS + j] * noise[j];
    }
}

$likelihood

float vae_score(const uint8_t image[VAE_PIXELS], const float *noise)
{
    float mean[VAE_LATENTS], deviation[VAE_LATENTS], z[VAE_LATENTS];
    vae_encode(image, mean, deviation);
    float kl = prior_log_volume - 0.5f * VAE_LATENTS;
    for (int i = 0; i < VAE_LATENTS; i++) {
        kl -= 0.5f * deviation[i];
        deviation[i] = expf(0.5f * deviation[i]);
        z[i] = mean[i] + (noise ? deviation[i] * noise[i] : 0);
    }
    for (int i = 0; i < VAE_LATENTS; i++) {
        float distance = 0;
        for (int j = 0; j <= i; j++) {
            float inverse = prior_inverse[i * VAE_LATENTS + j], spread = inverse * deviation[j];
            distance += inverse * (mean[j] - prior_mean[j]);
            kl += 0.5f * spread * spread;
        }
        kl += 0.5f * distance * distance;
    }
    vae_parameters(z, parameters_of_pixels);
    float recon = 0;
    for (int i = 0; i < VAE_PIXELS; i++)
        recon += surprise((float)image[i] / 255, parameters_of_pixels[i]);
    return recon + kl;
}
