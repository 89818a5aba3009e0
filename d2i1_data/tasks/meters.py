"""Meters: how predictions are scored. Every metric is computed over all pixels of all samples.

A meter has no state. `measure` gives S sums for each sample, [B, S] float64. `summary` computes the
metrics from the total of these sums. So samples, batches and processes merge by addition, and a
bootstrap is a weighted sum.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor


class ByClass(NamedTuple):
    """The scores of single classes, over all pixels of all samples.

    iou: IoU of each class; nan if it occurs neither in truth nor in prediction. confusion: number
    of pixels, with a row for each true class and a column for each predicted class.
    """

    iou: list[float]
    confusion: list[list[int]]


class Meter(ABC):
    """The scoring of one task.

    headline: the main metric of the task. table_metrics: the metrics that tables show.
    higher_better_prefixes: a metric is better when higher if its name begins with one of these;
    all others are better when lower. unit: unit of the error of a pixel.
    """

    headline: ClassVar[str]
    table_metrics: ClassVar[tuple[str, ...]]
    higher_better_prefixes: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]

    def higher_is_better(self, metric: str) -> bool:
        """Whether a metric is better when higher."""
        return metric.startswith(self.higher_better_prefixes)

    def with_classes(self, count: int) -> "Meter":
        """The same meter for maps with this many classes."""
        return self

    def worst(self, target: Tensor) -> Tensor:
        """The prediction that counts where a model predicts nothing, such as NaN.

        Args:
            target: [B, C, H, W].
        """
        return torch.zeros_like(target)

    @abstractmethod
    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Error of each pixel, at least 0, [B, 1, H, W]. It is undefined for unknown pixels.

        Args:
            prediction: [B, C, H, W].
            target: [B, C, H, W].
        """

    @abstractmethod
    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The sums of each sample over its valid pixels, [B, S] float64.

        Args:
            prediction: [B, C, H, W].
            target: [B, C, H, W].
            valid: [B, 1, H, W] bool.
        """

    @abstractmethod
    def summary(self, total: Tensor) -> dict[str, float]:
        """Compute the metrics from the total sums [S]; nan if no pixel was valid."""

    def by_class(self, total: Tensor) -> ByClass | None:
        """The scores of single classes from the total sums [S]; None for maps without classes."""
        return None


def pixel_sums(valid: Tensor, *columns: Tensor) -> Tensor:
    """Number of valid pixels, then the sum of each column over them, [B, 1 + columns].

    Args:
        valid: [B, 1, H, W] bool.
        columns: values of pixels, [B, 1, H, W] each.
    """
    maps = torch.cat(
        [torch.ones_like(valid, dtype=torch.float64), *(c.double() for c in columns)], 1
    )
    return torch.where(valid, maps, 0.0).sum((2, 3))


def pixel_histogram(bins: Tensor, valid: Tensor, count: int) -> Tensor:
    """Number of valid pixels of each sample in each bin, [B, count] float64.

    Args:
        bins: bin of each pixel, [B, 1, H, W]. Values outside of 0 to count - 1 are clipped.
        valid: [B, 1, H, W] bool.
        count: number of bins.
    """
    batch = torch.arange(len(bins), device=bins.device).view(-1, 1, 1, 1)
    flat = (batch * count + bins.clamp(0, count - 1))[valid]
    return torch.bincount(flat, minlength=len(bins) * count).view(-1, count).double()


class AngularError(Meter):
    """Angle between unit vectors in degrees: mean, median (to 0.01), RMSE, share below thresholds.

    Thresholds and pi are exact, unlike in several published evaluations.
    """

    headline = "mean"
    table_metrics = ("mean", "median", "rmse", "under_11.25", "under_22.5", "under_30")
    higher_better_prefixes = ("under_",)
    unit = "degrees"
    thresholds = (5.0, 7.5, 11.25, 11.5, 22.5, 30.0)  # iDisc reports its 11.5 under the name 11.25
    bins = 18_000

    def worst(self, target: Tensor) -> Tensor:
        return -target

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        predicted, true = prediction.double(), target.double()
        cross = torch.linalg.cross(predicted, true, dim=1).norm(dim=1, keepdim=True)
        return torch.rad2deg(torch.atan2(cross, (predicted * true).sum(1, keepdim=True)))

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        angle = self.error(prediction, target)
        under = [angle < threshold for threshold in self.thresholds]
        counts = pixel_histogram((angle * (self.bins / 180)).long(), valid, self.bins)
        return torch.cat([pixel_sums(valid, angle, angle**2, *under), counts], 1)

    def summary(self, total: Tensor) -> dict[str, float]:
        n, angle, square, *under = (total[: 3 + len(self.thresholds)] / total[0]).tolist()
        half = torch.searchsorted(total[3 + len(self.thresholds) :].cumsum(0), total[0] / 2)
        metrics = {
            "mean": angle,
            "median": (half.item() + 0.5) * 180 / self.bins if n == n else math.nan,
            "rmse": math.sqrt(square) if n == n else math.nan,
        }
        return metrics | {f"under_{t:g}": u for t, u in zip(self.thresholds, under, strict=True)}


class DepthError(Meter):
    """Errors of distances.

    These are the RMSE in metres, the mean absolute and squared relative errors, and the share of
    pixels within a factor of 1.25^k. Three metrics use the log of prediction over truth: log10 is
    its mean absolute value to base 10, rmse_log its RMSE, silog 100 times its standard deviation.

    Metrics that begin with `aligned` count after a scale and a shift that fit the prediction of
    each image to its truth by least squares. They compare with models of relative depth.

    Source of the alignment: Marigold, src/util/alignment.py. (MiDaS fits inverse distances.)
    """

    headline = "abs_rel"
    table_metrics = ("rmse", "abs_rel", "delta1")
    higher_better_prefixes = ("delta", "aligned_delta")
    unit = "share of the truth"

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        true = target.double().clamp(min=1e-9)
        return (prediction.double() - true).abs() / true

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        predicted, true = prediction.double().clamp(min=1e-9), target.double().clamp(min=1e-9)
        log = (predicted / true).log()
        within = [log.abs() < math.log(1.25**k) for k in (1, 2, 3)]
        square, relative = (predicted - true) ** 2, self.error(prediction, target)
        plain = pixel_sums(valid, square, square / true, relative, log.abs(), log, log**2, *within)
        aligned = align(prediction.double(), true, valid).clamp(min=1e-6)
        near = (aligned / true).log().abs() < math.log(1.25)
        square, relative = (aligned - true) ** 2, (aligned - true).abs() / true
        return torch.cat([plain, pixel_sums(valid, square, relative, near)[:, 1:]], 1)

    def summary(self, total: Tensor) -> dict[str, float]:
        means = (total / total[0]).tolist()
        _, square, square_relative, relative, log_size, log, log_square, *within = means[:10]
        aligned_square, aligned_relative, aligned_near = means[10:]
        metrics = {
            "rmse": square**0.5,
            "abs_rel": relative,
            "sq_rel": square_relative,
            "log10": log_size / math.log(10),
            "rmse_log": log_square**0.5,
            "silog": 100 * max(log_square - log**2, 0.0) ** 0.5,
        }
        metrics |= {f"delta{k}": share for k, share in enumerate(within, 1)}
        return metrics | {
            "aligned_rmse": aligned_square**0.5,
            "aligned_abs_rel": aligned_relative,
            "aligned_delta1": aligned_near,
        }


def align(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Scale and shift the prediction of each sample to fit its target by least squares.

    Args:
        prediction: [B, 1, H, W] float64.
        target: [B, 1, H, W] float64.
        valid: the pixels that are fitted, [B, 1, H, W] bool.
    """
    count = valid.sum((1, 2, 3), keepdim=True)

    def mean(maps: Tensor) -> Tensor:
        return torch.where(valid, maps, 0.0).sum((1, 2, 3), keepdim=True) / count

    centre, away = mean(target), prediction - mean(prediction)
    spread = mean(away**2)
    varies = spread > 1e-12 * mean(prediction**2)  # otherwise every scale fits alike
    scale = torch.where(varies, mean(away * (target - centre)) / spread, 0.0)
    return scale * away + centre


class IntersectionOverUnion(Meter):
    """Mean IoU and pixel accuracy.

    Classes that occur neither in truth nor in prediction are left out of miou, as in mmsegmentation
    (VPD). They count as 0 in miou_all, as in InvPT and TaskPrompter.

    Source: InvPT, evaluation/eval_semseg.py; mmsegmentation 0.x, core/evaluation/metrics.py.
    """

    headline = "miou"
    table_metrics = ("miou",)
    higher_better_prefixes = ("miou", "accuracy")
    unit = "share of pixels"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def with_classes(self, count: int) -> Meter:
        return IntersectionOverUnion(count)

    def worst(self, target: Tensor) -> Tensor:
        return (target + 1) % self.classes

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction != target).double()

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        cell = torch.where(valid, target.long(), 0) * self.classes + prediction.long()
        return pixel_histogram(cell, valid, self.classes**2)

    def summary(self, total: Tensor) -> dict[str, float]:
        confusion = total.view(self.classes, self.classes)
        iou = self._iou(confusion)
        shares = iou[~iou.isnan()]
        accuracy = confusion.diagonal().sum() / confusion.sum()
        return {
            "miou": shares.mean().item(),
            "miou_all": shares.sum().item() / self.classes if len(shares) else math.nan,
            "accuracy": accuracy.item(),
        }

    def by_class(self, total: Tensor) -> ByClass:
        confusion = total.view(self.classes, self.classes)
        return ByClass(self._iou(confusion).tolist(), confusion.long().tolist())

    @staticmethod
    def _iou(confusion: Tensor) -> Tensor:
        """IoU of each class, nan if it does not occur."""
        hits = confusion.diagonal()
        return hits / (confusion.sum(0) + confusion.sum(1) - hits)


class FMeasure(Meter):
    """Mean absolute error, and the largest F-measure (beta^2 = 0.3) of thresholds 0.05 apart.

    Truth above 0.5 counts as positive. InvPT and TaskPrompter evaluate in the same way, but apply
    the sigmoid twice.
    """

    headline = "max_f"
    table_metrics = ("max_f", "mae")
    higher_better_prefixes = ("max_f",)
    unit = "difference of probability"
    thresholds = tuple(step / 20 for step in range(1, 20))

    def worst(self, target: Tensor) -> Tensor:
        return (target <= 0.5).to(target.dtype)

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs()

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        truth = target > 0.5
        chosen = [prediction > threshold for threshold in self.thresholds]
        hits = [mask & truth for mask in chosen]
        return pixel_sums(valid, self.error(prediction, target), truth, *chosen, *hits)

    def summary(self, total: Tensor) -> dict[str, float]:
        count, error, positive = total[:3].tolist()
        chosen, hits = total[3:].view(2, -1)
        precision, recall = hits / chosen.clamp(min=1), hits / max(positive, 1.0)
        f = 1.3 * precision * recall / (0.3 * precision + recall).clamp(min=1e-12)
        if not count:
            return {"max_f": math.nan, "mae": math.nan}
        return {"max_f": f.max().item(), "mae": error / count}


class AveragePrecision(Meter):
    """Area under the precision-recall curve over 1000 levels of the predicted probability."""

    headline = "ap"
    table_metrics = ("ap",)
    higher_better_prefixes = ("ap",)
    unit = "difference of probability"
    bins = 1000

    def worst(self, target: Tensor) -> Tensor:
        return (target <= 0.5).to(target.dtype)

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs()

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        level = (prediction * self.bins).long()
        edge = target > 0.5
        positives = pixel_histogram(level, valid & edge, self.bins)
        return torch.cat([positives, pixel_histogram(level, valid & ~edge, self.bins)], 1)

    def summary(self, total: Tensor) -> dict[str, float]:
        positives, negatives = total.view(2, -1).flip(1).cumsum(1)  # highest level first
        precision = positives / (positives + negatives).clamp(min=1)
        recall = positives / positives[-1]
        steps = torch.diff(recall, prepend=recall.new_zeros(1))
        return {"ap": (precision * steps).sum().item()}
