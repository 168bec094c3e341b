"""Command-line arguments, read by the WebUI before it starts."""

from argparse import ArgumentParser


def preload(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--instantstyle-dir",
        action="append",
        metavar="FOLDER",
        help="another folder with IP-Adapter files and CLIP image encoders; may be given several times",
    )
