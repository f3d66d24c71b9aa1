#!/usr/bin/env python3
"""ONNX Runtime as a peer: `peer_onnxruntime.py THREADS` serves (see serve.py) networks whose batch norm is folded into the weights."""
import sys

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from serve import Work, fastest, serve

threads = int(sys.argv[1])


def network(widths, rows):
    """Gemm and Relu in turns, as a folded `Sequential` of Dense, BatchNorm and ReLU is."""
    random = numpy.random.default_rng(1)
    nodes, weights, x = [], [], "x"
    for index, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        matrix = random.standard_normal((inputs, outputs)).astype(numpy.float32) / numpy.sqrt(inputs, dtype=numpy.float32)
        bias = random.standard_normal(outputs).astype(numpy.float32)
        weights += [numpy_helper.from_array(matrix, f"weight{index}"), numpy_helper.from_array(bias, f"bias{index}")]
        last = index == len(widths) - 2
        nodes.append(helper.make_node("Gemm", [x, f"weight{index}", f"bias{index}"], ["scores" if last else f"z{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{index}"], [f"a{index}"]))
            x = f"a{index}"
    graph = helper.make_graph(
        nodes, "folded", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, widths[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, widths[-1]])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def inference(widths, rows):
    """The fastest of one thread and all, of a plain call and one whose input and output are bound before."""
    x = numpy.random.default_rng(2).standard_normal((rows, widths[0])).astype(numpy.float32)
    model = network(widths, rows)
    works = []
    for count in sorted({1, threads}):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        works.append(Work(lambda session=session: session.run(None, {"x": x}), note=f"run, {count} thread(s)"))
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        result = onnxruntime.OrtValue.ortvalue_from_numpy(numpy.zeros((rows, widths[-1]), numpy.float32))
        binding.bind_ortvalue_output("scores", result)
        works.append(Work(lambda session=session, binding=binding: session.run_with_iobinding(binding),
                          note=f"bound, {count} thread(s)"))
    return fastest(works)


def prepare(name):
    match name.split("/"):
        case ["inference", widths, rows]:
            return inference([int(w) for w in widths.split("-")], int(rows.removeprefix("rows-")))
    return None


if __name__ == "__main__":
    serve({"name": "ONNX Runtime", "version": onnxruntime.__version__}, prepare)
