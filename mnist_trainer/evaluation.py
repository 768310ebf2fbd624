"""A finished run's model, scored on the test images of its configuration."""

from pathlib import Path

from mnist_trainer import run_folder
from mnist_trainer.config import RunConfig
from mnist_trainer.data import create_test_loader
from mnist_trainer.devices import resolve_devices
from mnist_trainer.errors import RequestError
from mnist_trainer.model import build_cnn, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.stages import choose_stages, with_stages
from mnist_trainer.trainer import Scores, evaluate

mx = import_mxnet()


def evaluate_run(folder: RunFolder, config: RunConfig, data_dir: Path | None = None) -> Scores:
    """Scores the parameters in a run folder.

    config: `load_recorded_config` of the folder, or that with another device.

    Raises RequestError when the folder holds no parameters of this network, or others than its summary is of, or when the data
    is not the genuine one.
    """
    path = folder / run_folder.PARAMETERS
    if not folder.is_finished:
        raise RequestError(
            f"{folder.path}: the run is not finished; go on with it by mnist-trainer train --resume {folder.path}"
        )
    if not path.is_file():
        raise RequestError(f"{path}: is missing")
    summary = folder.read_summary()
    if summary.get("test_total") != config.data.test_images:
        raise RequestError(
            f"{folder / run_folder.CONFIG}: its {config.data.test_images} test images are not those of {run_folder.SUMMARY}"
        )
    net = build_cnn()
    contexts = resolve_devices(config.runtime.device)
    try:
        net.load_parameters(str(path), ctx=contexts)
    except (AssertionError, AttributeError, KeyError, ValueError, TypeError, OSError, mx.MXNetError) as error:
        raise RequestError(f"{path}: holds no parameters of this network") from error
    if parameters_sha256(net) != summary.get("parameters_sha256"):
        raise RequestError(f"{path}: these are not the parameters that {run_folder.SUMMARY} was written with")
    # Fused ones may not be at hand here.
    stages = choose_stages("stock" if config.model.stages == "stock" else "auto", contexts)
    return evaluate(with_stages(net, stages, contexts), create_test_loader(config, data_dir))
