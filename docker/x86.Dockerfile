# The node on an x86 machine with an NVIDIA GPU: full TensorRT, ROS 2 Jazzy, Python 3.12.
#
# Not built and not run so far: neither docker nor a GPU was at hand. docs/deployment.md has more.
#
#   docker build -f docker/x86.Dockerfile -t kdc --build-arg USER_ID=$(id -u) .
#   docker run --rm --gpus all --network host --ipc host -v kdc_engines:/var/cache/kdc kdc

FROM nvcr.io/nvidia/tensorrt:25.01-py3

ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 ROS_DISTRO=jazzy

# ROS's own package of its apt source and key, held to its checksum.
ARG ROS_APT_SOURCE=1.1.0
ARG ROS_APT_SOURCE_SHA256=35441f3092fd05773a3c397fab38661bec466584c7a1f1c05366579997cb5fe7
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && curl --fail --silent --show-error --location --output /tmp/source.deb \
        https://github.com/ros-infrastructure/ros-apt-source/releases/download/${ROS_APT_SOURCE}/ros2-apt-source_${ROS_APT_SOURCE}.noble_all.deb \
    && echo "${ROS_APT_SOURCE_SHA256}  /tmp/source.deb" | sha256sum --check --strict \
    && dpkg --install /tmp/source.deb \
    && rm -rf /tmp/source.deb /var/lib/apt/lists/*

# What package.xml asks for.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3-numpy \
        python3-opencv \
        python3-platformdirs \
        python3-scipy \
        python3-venv \
        python3-yaml \
        ros-${ROS_DISTRO}-cv-bridge \
        ros-${ROS_DISTRO}-diagnostic-msgs \
        ros-${ROS_DISTRO}-geometry-msgs \
        ros-${ROS_DISTRO}-launch \
        ros-${ROS_DISTRO}-launch-ros \
        ros-${ROS_DISTRO}-lifecycle-msgs \
        ros-${ROS_DISTRO}-rcl-interfaces \
        ros-${ROS_DISTRO}-rclpy \
        ros-${ROS_DISTRO}-ros2launch \
        ros-${ROS_DISTRO}-sensor-msgs \
        ros-${ROS_DISTRO}-std-msgs \
        ros-${ROS_DISTRO}-std-srvs \
        ros-${ROS_DISTRO}-visualization-msgs \
    && rm -rf /var/lib/apt/lists/*

# The rest by pip, beside the system's packages: OpenCV and cv_bridge are ROS's, made for numpy 1,
# and cuda-python is that of the image's CUDA.
COPY . /src
RUN python3 -m venv --system-site-packages /opt/kdc \
    && /opt/kdc/bin/pip install --no-cache-dir \
        'numpy>=1.23.3,<2' 'cuda-python>=12.6.1,<13' 'onnxruntime>=1.18' 'pydantic>=2.5' \
        'rich>=12.6' 'safetensors>=0.3.1' 'typer>=0.15.4' \
    && /opt/kdc/bin/pip install --no-cache-dir --no-deps /src \
    && rm -rf /src

# The camera's user, with whom the node shares memory. Engines are code: their folder is this
# user's alone. On a Jetson the GPU belongs to the group `video`.
ARG USER_ID=1000
RUN useradd --create-home --non-unique --uid ${USER_ID} --groups video kdc \
    && install --directory --owner kdc --group kdc --mode 700 /var/cache/kdc
ENV XDG_CACHE_HOME=/var/cache/kdc PATH=/opt/kdc/bin:$PATH
VOLUME /var/cache/kdc
USER kdc
WORKDIR /home/kdc

STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/bash", "-c", "source /opt/ros/$ROS_DISTRO/setup.bash && export AMENT_PREFIX_PATH=/opt/kdc:$AMENT_PREFIX_PATH && exec \"$@\"", "kdc"]
CMD ["kdc_node", "--ros-args", "--remap", "image:=/camera/image_raw"]
