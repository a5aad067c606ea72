"""Images from the bytes of a file to the input of a network."""

import dataclasses

import tensorflow as tf

# Means and standard deviations of ImageNet's training images, as keras.applications has them.
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
TORCH_MEAN_RGB, TORCH_DEVIATION_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Batches of images.

    Args:
        size: Height and width of what comes out, in pixels.
        augment: `"standard"`: a random part of 8 to 100 % of the area, 3:4 to 4:3 in shape,
            resized, and mirrored every other time. `"none"`: trained on as evaluated.
        mode: `"caffe"` or `"torch"`, as keras.applications calls how values are scaled.
    """

    size: int
    augment: str
    mode: str

    def train_batches(
        self, images: tf.data.Dataset, seed: tf.Tensor, batch_size: int
    ) -> tf.data.Dataset:
        """Returns the batches of an epoch, all complete.

        Args:
            images: The epoch's images, as pairs of a file's bytes and a label.
            seed: The epoch's, a scalar int64 tensor. Augmentation follows from it and from an
                image's place.
            batch_size: Number of images in a batch.
        """

        def prepared(
            index: tf.Tensor, image: tuple[tf.Tensor, tf.Tensor]
        ) -> tuple[tf.Tensor, tf.Tensor]:
            return self.scaled(self.cut(decoded(image[0]), tf.stack([seed, index]))), image[1]

        images = images.enumerate().map(prepared, tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size, drop_remainder=True)

    def validation_batches(self, images: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Returns all images once, in order; the last batch may be smaller."""

        def prepared(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.scaled(self.centre(decoded(encoded))), label

        images = images.map(prepared, tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def cut(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns what is trained on, of shape (size, size, 3), in 0 to 255."""
        if self.augment == "none":
            return self.centre(image)
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image), tf.zeros([1, 0, 4]), seed, min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3), area_range=(0.08, 1.0), max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        part = tf.ensure_shape(tf.slice(image, begin, extent), [None, None, 3])
        part = tf.image.resize(part, [self.size, self.size])
        # Another seed than the cut's: the two would go together otherwise.
        return tf.image.stateless_random_flip_left_right(part, seed ^ (1 << 40))

    def centre(self, image: tf.Tensor) -> tf.Tensor:
        """Returns what is evaluated: the middle, once the shorter side is 256 for a size of 224."""
        shape = tf.shape(image)[:2]
        shorter = round(self.size * 8 / 7)
        factor = shorter / tf.reduce_min(shape)
        # Rounded, for 256 / 375 * 375 need not be 256.
        resized = tf.cast(tf.round(tf.cast(shape, tf.float64) * factor), tf.int32)
        image = tf.image.resize(image, resized)
        top, left = tf.unstack((resized - self.size) // 2)
        return image[top : top + self.size, left : left + self.size]

    def scaled(self, image: tf.Tensor) -> tf.Tensor:
        """Returns an image of 0 to 255 in RGB as the network was published to take it."""
        image = tf.ensure_shape(image, [self.size, self.size, 3])
        if self.mode == "caffe":
            return image[..., ::-1] - tf.constant(CAFFE_MEAN_BGR)
        return (image / 255.0 - tf.constant(TORCH_MEAN_RGB)) / tf.constant(TORCH_DEVIATION_RGB)


def decoded(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the pixels, (height, width, 3) in RGB, of a JPEG or PNG, be it grey or CMYK."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])
