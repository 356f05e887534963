"""Write the embedded shapes data set in COCO format.

Each split is a folder of images and an annotation file beside it, for
example train/ and train.json. Splits that are there already are kept.
"""

import argparse

from mmcr.cli import place, user_errors
from mmcr.data.shapes import write_shapes


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out-dir', type=place, default='data/shapes')
    for split, count in (('train', 1000), ('val', 200), ('test', 200)):
        parser.add_argument(
            f'--{split}',
            type=int,
            default=count,
            metavar='N',
            help='number of images, 0 for none (default: %(default)s)',
        )
    parser.add_argument(
        '--image-size',
        type=int,
        nargs='+',
        default=[256],
        metavar='PIXELS',
        help='width and height, or one number for both (default: 256)',
    )
    parser.add_argument(
        '--object-size',
        type=int,
        nargs=2,
        metavar='PIXELS',
        help='least and largest side of objects (default: 8, and 0.95 of the image)',
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


@user_errors()
def main():
    args = parse_args()
    size = tuple(args.image_size * (2 if len(args.image_size) == 1 else 1))
    for split in ('train', 'val', 'test'):
        if count := getattr(args, split):
            made = write_shapes(
                args.out_dir, count, size, args.seed, split, args.object_size
            )
            print(made)


if __name__ == '__main__':
    main()
