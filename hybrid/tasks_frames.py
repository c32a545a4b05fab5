"""Classification frame by frame, for networks that give every frame its logits."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrid import metrics
from hybrid.tasks import Classification, cross_entropy
from learners.masking import masked_mean


@dataclasses.dataclass(frozen=True)
class FrameClassification(Classification):
    """Cross-entropy at every valid frame, averaged over the frames of a clip, then over clips.

    `labels` are `[batch, frames]`, or `[batch]`, a clip's label being that of all its frames. In
    the second case a clip is taken for what is likeliest over its frames together (mean of the
    logarithms of the probabilities), which gives `accuracy`; `frame_accuracy` counts frames.

    Attributes:
        label_smoothing: share of the target spread over all classes, in [0, 1).
    """

    def judge(
        self,
        logits: Float[Array, "batch *axes classes"],
        mask: Bool[Array, "batch frames"],
        labels: Int[Array, "batch ..."],
    ) -> tuple[Float[Array, " batch"], dict[str, Array], dict[str, Array]]:
        """See `Classification.judge`.

        Raises:
            ValueError: logits that are not one set for each frame.
        """
        if logits.ndim != 3 or logits.shape[:2] != mask.shape:
            raise ValueError(
                f"The network must give logits [batch, frames, classes], {mask.shape} of them; got "
                f"{logits.shape}. Use a network that labels frames (learners:StrfCnn), or the task "
                "hybrid.tasks:Classification."
            )
        of_clips = labels.ndim == 1
        frame_labels = jnp.broadcast_to(labels[:, None], mask.shape) if of_clips else labels
        flat = logits.reshape(-1, logits.shape[-1]), frame_labels.reshape(-1)
        value = masked_mean(cross_entropy(*flat, self.label_smoothing).reshape(mask.shape), mask)
        frame_hits = masked_mean(metrics.hits(*flat).reshape(mask.shape), mask)
        if of_clips:
            logits = masked_mean(jax.nn.log_softmax(logits), mask)
            scores = {"accuracy": metrics.hits(logits, labels), "frame_accuracy": frame_hits}
        else:
            scores = {"accuracy": frame_hits}
        return value, scores, {"logits": logits, "predictions": jnp.argmax(logits, axis=-1)}
