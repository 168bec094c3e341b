"""Packs what training left into the weights that ship: python -m demo.world.pack FOLDER"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import packing, train_unet, train_vae
from .assembly import NETS, fold_sizes


def pack_nets(folder: Path, path: Path = NETS) -> Path:
    """Write UNet and autoencoder as the file that ships."""
    unet = train_unet.trained(folder)
    fold_sizes(unet, train_unet.TIME_IDS)
    packing.write({"unet": unet.state_dict(), "vae": train_vae.trained(folder).state_dict()}, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack UNet and autoencoder.")
    parser.add_argument("folder", type=Path, help="where train_unet and train_vae have left their weights")
    path = pack_nets(parser.parse_args().folder)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
