"""A target: a machine to compile for, under a name."""

from __future__ import annotations

from gensynth.backends.tvm import CudaTarget, Target, register_target

JETSON_NANO = register_target(
    Target(
        name="jetson-nano-gpu",
        description="Nvidia Jetson Nano, its Maxwell GPU of 128 cores (sm_53); JetPack 4 (CUDA 10.2, glibc 2.27)",
        architecture="aarch64",
        llvm={"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a57"},
        triple="aarch64-linux-gnu.2.27",
        lanes=4,
        registers=32,
        cores=4,
        caches=(32 * 1024, 2 * 1024**2),
        multiplies_by_lane=True,
        cuda=CudaTarget(arch="sm_53", multiprocessors=1),
        dtypes=("f32", "f16"),
        sources={"cuda.multiprocessors": "Jetson Nano System-on-Module Data Sheet, Nvidia: 128 cores"},
    )
)
