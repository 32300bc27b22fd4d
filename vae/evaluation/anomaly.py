"""How well a score tells images of the training data's kind from others; the higher, the more anomalous."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from vae.evaluation.doubles import doubles
from vae.evaluation.latents import Codes, aggregate_covariance


class Detection(NamedTuple):
    """How well a score finds the images of the other set."""

    auroc: float  # P(an outer image's score > an inner one's), ties count half; ½ is guessing
    average_precision: float  # area under precision over recall; guessing gives the share of outer images


def detection(inside: Tensor, outside: Tensor) -> Detection:
    """Compare the scores (n,) of in-distribution images with (m,) of out-of-distribution ones."""
    scores = doubles(torch.cat([inside, outside])).numpy()
    anomalous = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).numpy()
    return Detection(float(roc_auc_score(anomalous, scores)), float(average_precision_score(anomalous, scores)))


def latent_distance(means: Tensor, training: Codes) -> Tensor:
    """√((μ − m)ᵀ A⁻¹ (μ − m)) of posterior means μ (n, latent_dim) → (n,): the Mahalanobis distance (Lee et al., 2018).

    m and A are mean and covariance of the training images' aggregate posterior.
    """
    values, axes = torch.linalg.eigh(aggregate_covariance(training))
    # Steps along a direction without any spread are then huge, but not infinite.
    scale = values.clamp(min=1e-12 * values[-1].item()).sqrt()
    return ((doubles(means) - training.means.double().mean(0)) @ axes / scale).norm(dim=-1)
