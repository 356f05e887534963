r"""Split a COCO annotation file into archtrain.json and archval.json.

The split of the paper:

    python tools/dataset_converters/split_coco.py \
        data/coco/annotations/instances_train2017.json --archval 5000 \
        --out-dir data/coco/annotations
"""

import argparse

from mmcr.cli import place, user_errors
from mmcr.data.split import split_coco


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('ann', type=place, help='COCO annotation file')
    parser.add_argument(
        '--archval',
        type=int,
        default=5000,
        help='number of images to hold out (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out-dir', type=place, required=True)
    return parser.parse_args()


@user_errors()
def main():
    args = parse_args()
    for path in split_coco(args.ann, args.archval, args.out_dir, args.seed):
        print(path)


if __name__ == '__main__':
    main()
