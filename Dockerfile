# The commands of docs/install.md in an image.
#   docker build -t surfaces .                                          for GPUs, and for CPUs too; large
#   docker build -t surfaces:cpu --build-arg TORCH_INDEX=ADDRESS .      for CPUs alone
#   docker run --rm --gpus all -v "$PWD:/data" surfaces surfaces-train configs/neus_hash.yaml data.path=DATA
# PyTorch's usual wheel brings CUDA's libraries; the host adds its driver and NVIDIA's container toolkit. TORCH_INDEX is
# the address of PyTorch's index of CPU wheels, as its site names it: the same version, without CUDA.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The wheels first: they stay as they are while the sources change.
COPY requirements*.txt constraints.txt /source/
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --only-binary=:all: -c /source/constraints.txt \
    -r /source/requirements.txt -r /source/requirements-view.txt -r /source/requirements-prepare.txt

COPY . /source
RUN pip install --no-deps /source && rm -rf /source

# Nobody's: `docker run --user "$(id -u):$(id -g)"` writes files that are yours.
RUN useradd --create-home user && mkdir /data && chown user /data
USER user
ENV HOME=/tmp
WORKDIR /data
CMD ["surfaces-train", "--help"]
