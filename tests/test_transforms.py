"""The views of an image: held to Pillow and to arithmetic, at odd shapes too."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sancli.data.preprocessing import Preprocessing
from sancli.data.transforms import AUGMENTS, evaluation_view, mixing, training_view, visible

SHAPES = [(1, 1), (2, 2), (1, 2000), (2000, 4), (31, 47), (150, 150), (33, 32)]
CROPS = ("center", "squash", "pad")


def picture(size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", SHAPES)
def test_every_shape_becomes_the_square_asked_for(size, crop):
    preprocessing = Preprocessing(image_size=33, crop=crop)
    for view in (evaluation_view(preprocessing), *(training_view(preprocessing, name) for name in AUGMENTS)):
        tensor = view(picture(size))
        assert tensor.shape == (3, 33, 33)
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()


def by_pillow(image, preprocessing):
    pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.float32(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return torch.from_numpy((pixels - mean) / std)


def test_the_middle_square_is_cropped_shrunk_and_normalised():
    preprocessing = Preprocessing(image_size=32)
    image = picture((100, 64))
    expected = image.crop((18, 0, 82, 64)).resize((32, 32), Image.Resampling.BILINEAR)
    torch.testing.assert_close(evaluation_view(preprocessing)(image), by_pillow(expected, preprocessing))


@pytest.mark.parametrize("size", [(101, 64), (64, 101), (40, 33), (1, 2000), (2, 1)])
def test_the_middle_is_the_middle_where_it_starts_inside_a_pixel_too(size):
    view, image = evaluation_view(Preprocessing(image_size=32)), picture(size)
    turned = view(image.transpose(Image.Transpose.ROTATE_180)).flip(1, 2)
    torch.testing.assert_close(turned, view(image), atol=1 / 255 / 0.224, rtol=0)  # a rounding of one level


@pytest.mark.parametrize(
    ("size", "levels", "mean_levels"),
    [
        ((256, 256), 0, 0),
        ((512, 384), 40, 2),
        ((768, 512), 1, 0.01),
        ((500, 375), 40, 2),
        ((300, 200), 40, 2),
    ],
)
def test_224_of_256_is_what_torchvision_resizes_and_crops(size, levels, mean_levels):
    # Where 256 times the proportions is no whole number, torchvision's picture lies up to a pixel aside.
    from torchvision.transforms import v2

    photo = picture((12, 9)).resize(size, Image.Resampling.BICUBIC)
    preprocessing = Preprocessing(image_size=224, crop_share=224 / 256, mean=(0, 0, 0), std=(1, 1, 1))
    expected = np.asarray(v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(photo), dtype=float)
    seen = 255 * evaluation_view(preprocessing)(photo).numpy().transpose(1, 2, 0)
    difference = np.abs(seen - expected)
    assert difference.max() <= levels + 1e-3
    assert difference.mean() <= mean_levels + 1e-3
    plain = evaluation_view(Preprocessing(image_size=224, mean=(0, 0, 0), std=(1, 1, 1)))(photo)
    assert np.abs(255 * plain.numpy().transpose(1, 2, 0) - expected).mean() > 5  # the whole square is another


@pytest.mark.parametrize("crop", ["squash", "pad"])
def test_a_share_is_for_the_center_alone(crop):
    views = (evaluation_view(Preprocessing(image_size=32, crop=crop, crop_share=s)) for s in (0.5, 1.0))
    assert torch.equal(*(view(picture((100, 64))) for view in views))


def test_an_old_model_without_a_share_shows_the_whole_square():
    values = Preprocessing(image_size=32, crop_share=0.5).to_dict()
    assert Preprocessing.from_dict(values).crop_share == 0.5
    del values["crop_share"]
    assert Preprocessing.from_dict(values) == Preprocessing(image_size=32)


def test_squash_shows_all_of_the_image():
    preprocessing = Preprocessing(image_size=32, crop="squash")
    image = picture((100, 64))
    expected = image.resize((32, 32), Image.Resampling.BILINEAR)
    torch.testing.assert_close(evaluation_view(preprocessing)(image), by_pillow(expected, preprocessing))


def test_pad_keeps_the_proportions_between_grey_bars():
    preprocessing = Preprocessing(image_size=32, crop="pad", mean=(0, 0, 0), std=(1, 1, 1))
    seen = evaluation_view(preprocessing)(Image.new("RGB", (64, 32), "white"))
    assert (seen[:, 8:24] == 1).all()
    assert (seen[:, [0, 7, 24, 31]] == 128 / 255).all()


def test_equalize_is_that_of_pillow_channel_by_channel_before_the_crop():
    preprocessing = Preprocessing(image_size=32, equalize=True)
    image = picture((100, 64)).point(lambda value: value // 4)
    expected = ImageOps.equalize(image).crop((18, 0, 82, 64)).resize((32, 32), Image.Resampling.BILINEAR)
    torch.testing.assert_close(evaluation_view(preprocessing)(image), by_pillow(expected, preprocessing))


def test_shrinking_is_antialiased():
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]), (64, 32))[..., None].repeat(3, 2))
    seen = evaluation_view(Preprocessing(image_size=16, mean=(0, 0, 0), std=(1, 1, 1)))(stripes)
    torch.testing.assert_close(seen, torch.full((3, 16, 16), 0.5), atol=0.05, rtol=0)


@pytest.mark.parametrize("share", [1.0, 0.875])
def test_without_augmentation_training_sees_what_evaluation_sees(share):
    preprocessing = Preprocessing(image_size=48, crop_share=share)
    image = picture((70, 50))
    assert torch.equal(training_view(preprocessing, "none")(image), evaluation_view(preprocessing)(image))


def test_training_views_vary_and_repeat_with_the_seed():
    view, image = training_view(Preprocessing(image_size=32), "medium"), picture((64, 64))
    seen = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        seen.append(view(image))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0), (0, 1.0), (0.4, 1.0)])
def test_blended_labels_are_shares_that_sum_to_one(mixup, cutmix):
    torch.manual_seed(0)
    images, targets = mixing(mixup=mixup, cutmix=cutmix, num_classes=3)(
        torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    )
    assert images.shape == (4, 3, 8, 8)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert mixing(mixup=0, cutmix=0, num_classes=3) is None


def test_visible_undoes_the_normalisation():
    preprocessing = Preprocessing(image_size=8)
    image = picture((8, 8))
    seen = visible(evaluation_view(preprocessing)(image)[None], preprocessing)[0]
    torch.testing.assert_close(seen, torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255)))
