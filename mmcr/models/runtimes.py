"""Networks as they run deployed: by ONNX Runtime or OpenVINO, on a CPU.

torch's own exporter writes ONNX, which the one runs as it is and the other converts.
Their packages (requirements/deploy.txt) are imported where they are used.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.logs import quiet

#: What torch's exporter imports.
EXPORTER = ('onnx', 'onnxscript')
#: By runtime, the ending of its files.
SUFFIXES = {'onnxruntime': '.onnx', 'openvino': '.xml'}
PRECISIONS = ('fp32', 'fp16', 'int8')


def check_runtime(runtime: str, precision: str = 'fp32') -> None:
    """Checks that a network can be brought to a runtime here.

    Raises:
        UserError: There is no such runtime or precision, or packages are missing.
    """
    if runtime not in SUFFIXES or precision not in PRECISIONS:
        raise UserError(
            f'A runtime is one of {", ".join(SUFFIXES)} and a precision one of '
            f'{", ".join(PRECISIONS)}, but got {runtime} and {precision}.'
        )
    needed = [*EXPORTER, runtime]
    if precision == 'int8':
        needed.append('onnxruntime')  # which quantizes for both
    if missing := [name for name in dict.fromkeys(needed) if find_spec(name) is None]:
        raise UserError(
            f'{runtime} needs packages that are not installed. Install them: pip '
            f'install {" ".join(missing)} (requirements/deploy.txt has versions that '
            f'were tested).'
        )


def runtime_versions(runtime: str) -> dict[str, str]:
    """By package, which version made and runs a file."""
    return {name: import_module(name).__version__ for name in (*EXPORTER[:1], runtime)}


def write_onnx(
    path: Path,
    module: nn.Module,
    example: Tensor,
    dims: Mapping[int, object] | None = None,
    outputs: Sequence[str] | None = None,
) -> None:
    """Exports a module of one input, called ``input``, in evaluation mode.

    Args:
        path: Of the file to write.
        module: Returns tensors, in tuples and lists.
        example: An input; sizes of 1 in it or of what is made of it become constants.
        dims: By index, the dimensions (`torch.export.Dim`) that may vary.
        outputs: Names of the tensors in their order.

    Raises:
        UserError: torch cannot export it.
    """
    module.eval()
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                input_names=['input'],
                output_names=outputs,
                dynamic_shapes=dims and (dict(dims),),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise UserError(
                f'The network must be of layers that torch.onnx can export, but it '
                f'fails: {reason} Layers with kernels of their own, as the deformable '
                f'convolutions of mmcv, cannot be exported.'
            ) from error
    program.save(str(path))


@contextmanager
def _quiet():
    logger = logging.getLogger('torch.onnx')  # it misses a torchvision that none needs
    with quiet(logger, logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def converted(
    path: Path, out: Path, precision: str, inputs: Iterable[Tensor] = ()
) -> None:
    """Writes an ONNX file for the runtime that the ending of `out` names.

    With 'fp16', weights are stored as such; with 'int8', convolutions and matrix
    products take and have integers of 8 bits, but for the last ones before outputs.

    Args:
        path: From `write_onnx`.
        out: The file to write (OpenVINO: and a ``.bin`` beside it).
        precision: One of `PRECISIONS`.
        inputs: For int8, those that ranges are taken from.
    """
    with tempfile.TemporaryDirectory() as folder:
        if precision == 'int8':
            path = _quantized(path, Path(folder), inputs)
        if out.suffix == SUFFIXES['openvino']:
            import openvino

            model = openvino.convert_model(path)
            openvino.save_model(model, out, compress_to_fp16=precision == 'fp16')
            return
        if precision == 'fp16':
            path = _halved(path, Path(folder))
        out.write_bytes(path.read_bytes())


def _halved(path: Path, folder: Path) -> Path:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(model, folder / 'half.onnx')
    return folder / 'half.onnx'


def _quantized(path: Path, folder: Path, inputs: Iterable[Tensor]) -> Path:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.inputs = iter(inputs)

        def get_next(self):
            image = next(self.inputs, None)
            return None if image is None else {'input': image.numpy()}

    folded, out = folder / 'folded.onnx', folder / 'int8.onnx'
    # norms go into the convolutions before these are quantized
    quant_pre_process(path, folded, skip_symbolic_shape=True)
    last = _last_layers(onnx.load(folded).graph)
    quantize_static(folded, out, Reader(), per_channel=True, nodes_to_exclude=last)
    return out


def _last_layers(graph) -> list[str]:
    """Names of the layers with weights that lie nearest before a graph's outputs."""
    makers = {name: node for node in graph.node for name in node.output}
    wanted, found = [output.name for output in graph.output], []
    while wanted:
        node = makers.get(wanted.pop())
        if node is None:
            continue
        if node.op_type in ('Conv', 'Gemm', 'MatMul'):
            found.append(node.name)
        else:
            wanted += node.input
    return sorted(set(found))


class Session:
    """An exported file, ready to run on the CPU.

    Called with the input, it returns the list of its outputs, on the input's device.

    Args:
        path: Of the file; its ending says the runtime.
        threads: That it runs on; ``None``: as many as torch.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        threads = threads or torch.get_num_threads()
        if path.suffix == SUFFIXES['openvino']:
            import openvino

            settings = dict(
                PERFORMANCE_HINT='LATENCY',
                INFERENCE_NUM_THREADS=threads,
                INFERENCE_PRECISION_HINT='f32',  # not bfloat16, where there is one
            )
            compiled = openvino.Core().compile_model(path, 'CPU', settings)
            self.run = lambda image: list(compiled([image]).values())
        else:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3  # errors
            session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
            self.run = lambda image: session.run(None, {'input': image})

    def __call__(self, image: Tensor) -> list[Tensor]:
        outputs = self.run(image.detach().cpu().numpy())
        return [torch.from_numpy(output).to(image.device) for output in outputs]


def session_of(module: nn.Module, example: Tensor, runtime: str) -> Session:
    """A module as the runtime runs it on inputs of one size.

    Args:
        module: As `write_onnx` takes it, `example` too.
        runtime: A key of `SUFFIXES`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, out = (Path(folder, f'module{s}') for s in ('.onnx', SUFFIXES[runtime]))
        write_onnx(path, module, example)
        if out != path:
            converted(path, out, 'fp32')
        return Session(out)
