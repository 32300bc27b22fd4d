/* $title
 *
 * Five lines draw an image from the prior, encode it, and ask how strange it is:
 *
 *     uint8_t image[VAE_PIXELS];
 *     float z[VAE_LATENTS], mean[VAE_LATENTS], log_var[VAE_LATENTS];
 *     vae_sample(7, 0, z), vae_decode(z, image);
 *     vae_encode(image, mean, log_var);
 *     float anomaly = vae_score(image, NULL);
 *
 * Images are bytes from 0 to 255, channel by channel, row by row. All memory is in constants and fixed buffers, which
 * calls share: one at a time.
 */
#ifndef VAE_H
#define VAE_H

#include <stddef.h>
#include <stdint.h>

#define VAE_CHANNELS $channels
#define VAE_HEIGHT $height
#define VAE_WIDTH $width
#define VAE_PIXELS $pixels
#define VAE_LATENTS $latents
#define VAE_CONSTANTS $constants /* bytes of weights and the like */
#define VAE_RAM $ram /* bytes of fixed buffers */

#ifdef __cplusplus
extern "C" {
#endif

/* Mean and log-variance of q(z|x). */
void vae_encode(const uint8_t image[VAE_PIXELS], float mean[VAE_LATENTS], float log_var[VAE_LATENTS]);

/* Parameters of p(x|z): the logit of each pixel's mean. */
void vae_parameters(const float z[VAE_LATENTS], float parameters[VAE_PIXELS]);

/* The mean image E[x|z]. */
void vae_decode(const float z[VAE_LATENTS], uint8_t image[VAE_PIXELS]);

/* Standard normals: number `index` of the sequence that `seed` names (Philox4x32-10, Box-Muller). */
void vae_noise(uint32_t seed, uint32_t index, float noise[VAE_LATENTS]);

/* The draw from the prior that the same normals make. */
void vae_sample(uint32_t seed, uint32_t index, float z[VAE_LATENTS]);

/* -ELBO in nats, the higher, the stranger: -log p(x|z) + KL(q(z|x) || p(z)) at z = mean + deviation * noise.
 * NULL stands for zeros. */
float vae_score(const uint8_t image[VAE_PIXELS], const float *noise);

#ifdef __cplusplus
}
#endif

#endif
