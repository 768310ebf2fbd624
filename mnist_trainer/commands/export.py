"""`mnist-trainer export`: export the model of a run for use in other programs."""

from mnist_trainer.commands.request import Arguments, open_run
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE, RequestError


def export(arguments: Arguments) -> int:
    """Run `mnist-trainer export`; return the exit code."""
    output = arguments.output
    # Checked before the model is loaded. The ending protects other files; also, the package onnx chooses the format by it.
    if output and arguments.format == "onnx" and output.suffix != ".onnx":
        raise RequestError(f"--output {output}: the name of the file must end in .onnx")
    if output and not output.name:
        raise RequestError(f"--output {output}: this is a folder; add the beginning of the file names, as in DIR/name")
    folder, config = open_run(arguments)
    from mnist_trainer.data.files import find_data_dir, read_split
    from mnist_trainer.inference.export import export_mxnet, export_onnx
    from mnist_trainer.inference.predictor import open_model

    model = open_model(folder, config, arguments.checkpoint)
    images = read_split(find_data_dir(config.data.name, arguments.data_dir), config.data, train=False).images
    if arguments.format == "onnx":
        done = export_onnx(model, output or folder / f"model{model.suffix}.onnx", images)
    else:
        done = export_mxnet(model, output or folder / f"model{model.suffix}", images)
    difference = done.max_difference
    agreement = f"probabilities within {difference:.1g}" if difference else "the same probabilities"
    print_lines(f"Read back by {done.reader} on {done.images:,} test images: {agreement}", *map(str, done.files))
    return DONE
