"""How images are brought to a feature network's size; the choice moves published scores by tenths.

Parmar, Zhang, Zhu 2022, *On Aliased Resizing and Surprising Subtleties in GAN Evaluation*.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.errors import unknown


def tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """The bilinear resize of TensorFlow 1, within the graph behind published FIDs.

    Per axis of length ``n``, output ``i`` lies at ``u = i n / size``, the corners of pixels being
    their centres, and is ``x[k] + (x[min(k + 1, n - 1)] - x[k]) (u - k)`` with ``k = floor(u)``.
    Nothing is averaged where the image gets smaller.

    Args:
        images: [N, C, H, W] on any device.
        size: of the output.

    Returns:
        float [N, C, size, size], float32 for integer images.
    """
    x = images if images.is_floating_point() else images.float()
    return _lerp(_lerp(x, size, 3), size, 2)


def _lerp(x: Tensor, size: int, axis: int) -> Tensor:
    n = x.shape[axis]
    # TensorFlow's position is a product in float32; another order of rounding moves the weights.
    scale = torch.tensor(n / size, dtype=torch.float32)
    position = torch.arange(size, dtype=torch.float32) * scale
    low = position.long().clamp(max=n - 1)
    weight = (position - low).to(x.device, x.dtype).view(-1, *[1] * (3 - axis))
    low = low.to(x.device)
    a, b = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=n - 1))
    return a + (b - a) * weight


def clean(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic resize with antialias, each channel in float32: that of "clean" FIDs.

    The result is neither rounded nor clipped, so it may leave 0..255 at edges.

    Args:
        images: uint8 [N, C, H, W].
        size: of the output.

    Returns:
        float32 [N, C, size, size] on the device of ``images``.
    """
    return _pillow_bicubic(images, size, np.float32)


def pil_bicubic(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic resize with antialias of the 8-bit image: rounded, within 0..255.

    What image-classification pipelines do to a decoded image, and the default of Stein et al. 2023.

    Args:
        images: uint8 [N, C, H, W].
        size: of the output.

    Returns:
        float32 [N, C, size, size] on the device of ``images``.
    """
    return _pillow_bicubic(images, size, np.uint8)


def _pillow_bicubic(images: Tensor, size: int, dtype: type[np.generic]) -> Tensor:
    def one(plane: np.ndarray) -> np.ndarray:
        image = Image.fromarray(plane.astype(dtype))
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32)

    planes = images.flatten(0, 1).cpu().numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow frees the interpreter's lock
        resized = np.stack(list(pool.map(one, planes)))
    return torch.from_numpy(resized).view(*images.shape[:2], size, size).to(images.device)


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "tf1_bilinear": tf1_bilinear,
    "clean": clean,
    "pil_bicubic": pil_bicubic,
}
"""The resizes by the name under which scores record them."""


def check_resize(name: str) -> str:
    """The name itself.

    Raises:
        FewstepError: it is not in `RESIZES`.
    """
    if name not in RESIZES:
        raise unknown("resize", name, RESIZES)
    return name


def colour_of_size(images: Tensor, size: int, resize: str) -> Tensor:
    """Images uint8 [N, C, H, W], C = 1 or 3, as float32 [N, 3, size, size] in 0..255.

    Grey images get three equal channels.
    """
    return RESIZES[resize](images, size).expand(-1, 3, -1, -1)
