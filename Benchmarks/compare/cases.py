"""What is compared: the cases of `steppe-bench`, for each the peers that can do the same work, and the groups that are averaged."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A way in which a peer does a case: its label in the report, its process, and what the case is called there."""
    label: str
    process: str
    case: str


@dataclass(frozen=True)
class Case:
    """A case of ours. Its first peer works in the same layout as ours."""
    name: str
    peers: tuple[Peer, ...]

    @property
    def subject(self):
        return self.name.split("/")[0]


@dataclass(frozen=True)
class Group:
    """Cases whose ratios are averaged: against the first peer of each, or against the fastest."""
    title: str
    names: tuple[str, ...]
    fastest: bool


ROWS = ["64x256", "1024x1024", "4096x1024", "8192x4096"]
IMAGES = ["32x64x28x28", "64x64x56x56", "128x256x14x14", "256x512x7x7"]
MORE_IMAGES = ["64x2048x7x7", "16x64x56x56"]
NETWORKS = ["784-100-100-10", "784-128-128-10", "784-512-512-10", "784-1024-1024-10"]
FEATURES = ["64x256", "4096x1024", "64x128x768", "8192x4096"]
GROUPED = ["32x64x28x28", "64x64x56x56"]
BATCHES = [60, 64, 128, 256]
CONVOLUTIONS = ["32x64x56x56-64", "32x128x28x28-128", "32x256x14x14-256", "32x512x7x7-512", "64x1x28x28-32"]
PRODUCTS = ["64x784x128", "128x784x256", "256x256x256", "512x512x512", "1024x1024x1024"]
RESNET = "resnet/training-step/20-layers/28x28/batch-64"
ROW_PRODUCT = "1x784x512"


def batch_norm(direction, shape, nhwc=False):
    prefix = f"batchnorm/{direction}"
    if shape in ROWS:
        name = f"{prefix}/{shape}"
        return Case(name, (Peer("PyTorch", "pytorch", name), Peer("JAX", "jax", name)))
    nchw_peer = Peer("PyTorch NCHW", "pytorch", f"{prefix}/{shape}")
    nhwc_peer = Peer("PyTorch NHWC", "pytorch", f"{prefix}/nhwc/{shape}")
    others = Peer("JAX NHWC", "jax", nhwc_peer.case), Peer("LIBXSMM-DNN", "libxsmm", f"{prefix}/{shape}")
    if nhwc:
        return Case(nhwc_peer.case, (nhwc_peer, nchw_peer, *others))
    return Case(nchw_peer.case, (nchw_peer, nhwc_peer, *others))


def row_norms(direction):
    """The normalizations of rows and groups, each against PyTorch in the same layout."""
    names = [f"{subject}/{direction}/{shape}" for subject in ("layernorm", "rmsnorm") for shape in FEATURES]
    names += [f"{subject}/{direction}/{shape}" for subject in ("groupnorm", "instancenorm") for shape in GROUPED]
    return [Case(name, (Peer("PyTorch", "pytorch", name),)) for name in names]


def channels_last_norms(direction):
    names = [f"{subject}/{direction}/nhwc/{shape}" for subject in ("groupnorm", "instancenorm") for shape in GROUPED]
    return [Case(name, (Peer("PyTorch NHWC", "pytorch", name),)) for name in names]


def convolution_blocks(layout):
    """Convolution, batch norm and ReLU in training, each against PyTorch in the same layout."""
    names = [f"conv-bn-relu/training/{layout}{sizes}" for sizes in CONVOLUTIONS]
    return [Case(name, (Peer("PyTorch NHWC" if layout else "PyTorch", "pytorch", name),)) for name in names]


def all_cases():
    cases = []
    for direction in "forward", "backward":
        cases += [batch_norm(direction, shape) for shape in ROWS + IMAGES + MORE_IMAGES]
        cases += [batch_norm(direction, shape, nhwc=True) for shape in IMAGES + MORE_IMAGES]
    for direction in "forward", "training":
        for sizes in CONVOLUTIONS:
            name = f"conv/{direction}/{sizes}"
            cases.append(Case(name, (Peer("PyTorch", "pytorch", name), Peer("PyTorch NHWC", "pytorch", f"conv/{direction}/nhwc/{sizes}"))))
    cases += convolution_blocks("") + convolution_blocks("nhwc/")
    for direction in "forward", "backward":
        cases += row_norms(direction) + channels_last_norms(direction)
    for network, batch in zip(NETWORKS, BATCHES):
        name = f"training-step/{network}/batch-{batch}"
        cases.append(Case(name, (Peer("PyTorch", "pytorch", name), Peer("PyTorch compiled", "pytorch", f"{name}/compiled"),
                                 Peer("JAX", "jax", name))))
    cases.append(Case(RESNET, (Peer("PyTorch", "pytorch", RESNET), Peer("PyTorch NHWC", "pytorch", f"{RESNET}/nhwc"))))
    for rows in 1, 64:
        for network in NETWORKS:
            name = f"inference/{network}/rows-{rows}"
            cases.append(Case(name, (Peer("ONNX Runtime", "onnxruntime", name),)))
    for shape in [*PRODUCTS, ROW_PRODUCT]:
        name = f"matmul/{shape}"
        cases.append(Case(name, (Peer("PyTorch", "pytorch", name), Peer("OpenBLAS by NumPy", "numpy", name), Peer("JAX", "jax", name))))
    for name in "optimizer/sgd-momentum/1850000", "optimizer/adam/1850000":
        cases.append(Case(name, (Peer("PyTorch", "pytorch", name),)))
    return cases


def all_groups():
    def names(*cases):
        return tuple(case.name for case in cases)

    groups = []
    for direction in "forward", "backward":
        groups.append(Group(
            f"Batch norm {direction}, against PyTorch in the same layout",
            names(*(batch_norm(direction, shape) for shape in ROWS + IMAGES),
                  *(batch_norm(direction, shape, nhwc=True) for shape in IMAGES)), False))
    for direction in "forward", "backward":
        groups.append(Group(f"Batch norm {direction}, rows × channels, against the fastest",
                            names(*(batch_norm(direction, shape) for shape in ROWS)), True))
    for nhwc in False, True:
        for direction in "forward", "backward":
            groups.append(Group(
                f"Batch norm {direction}, {'NHWC' if nhwc else 'NCHW'}, against the fastest in any layout",
                names(*(batch_norm(direction, shape, nhwc) for shape in IMAGES + MORE_IMAGES)), True))
    for direction in "forward", "training":
        groups.append(Group(f"Convolution, {direction}, against PyTorch", tuple(f"conv/{direction}/{sizes}" for sizes in CONVOLUTIONS), False))
    for layout in "", "nhwc/":
        groups.append(Group(f"Convolution, batch norm and ReLU, training, {'NHWC' if layout else 'NCHW'}, against PyTorch",
                            names(*convolution_blocks(layout)), False))
    for direction in "forward", "backward":
        groups.append(Group(f"Layer, RMS, group and instance norm {direction}, against PyTorch", names(*row_norms(direction)), False))
        groups.append(Group(f"Group and instance norm {direction}, NHWC, against PyTorch", names(*channels_last_norms(direction)), False))
    groups += [
        Group("Training step", tuple(f"training-step/{n}/batch-{b}" for n, b in zip(NETWORKS, BATCHES)), True),
        Group("Training step of a residual network, against PyTorch in the same layout", (RESNET,), False),
        Group("Training step of a residual network, against the fastest", (RESNET,), True),
        Group("Inference, one row", tuple(f"inference/{n}/rows-1" for n in NETWORKS), True),
        Group("Inference, 64 rows", tuple(f"inference/{n}/rows-64" for n in NETWORKS), True),
        Group("Matrix products, against PyTorch", tuple(f"matmul/{shape}" for shape in PRODUCTS), False),
        Group("Matrix products, against the fastest", tuple(f"matmul/{shape}" for shape in PRODUCTS), True),
        Group("Row times matrix", (f"matmul/{ROW_PRODUCT}",), True),
        Group("Optimizers", ("optimizer/sgd-momentum/1850000", "optimizer/adam/1850000"), True),
    ]
    return groups
