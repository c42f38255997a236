"""Start the kdc node: ``ros2 launch kdc_ros kdc.launch.py image:=/camera/image_raw``.

Arguments and their defaults: ``ros2 launch kdc_ros kdc.launch.py --show-args``. Plain actions
only, so that Humble to Kilted load it alike.
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from kdc_ros import env

TEXTS = ("model", "device", "runtime")
FLAGS = ("autostart", "use_sim_time")


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node and the arguments that shape it."""
    arguments = {  # name: (default, description)
        "image": ("image", "topic of the camera images"),
        "namespace": ("", "namespace of the node, for several cameras"),
        "name": ("kdc", "name of the node"),
        "params_file": (str(env.find_config("kdc.yaml")), "parameters of the node"),
        "autostart": ("true", "configure and activate by itself; goes over params_file"),
        "model": ("", "model, empty for the shipped one; goes over params_file"),
        "device": ("auto", "auto, cpu, cuda or cuda:N; goes over params_file"),
        "runtime": ("auto", "what executes the model; goes over params_file"),
        "use_sim_time": ("false", "take the time from /clock; goes over params_file"),
        "fastdds_profile": (
            os.environ.get(env.PROFILE_SWITCH, "true"),
            "use config/fastdds_shm.xml, without which images get lost, unless the environment "
            "names another profile or transport; the camera needs it too",
        ),
        "respawn": ("false", "start the node again when it ends by a fault"),
        "log_level": ("info", "debug, info, warn, error or fatal"),
    }
    actions = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in arguments.items()
    ]
    value = {name: LaunchConfiguration(name) for name in arguments}

    # For all that this launch starts, not for the node alone: the sender of the images counts.
    profile = env.profile_setting()
    if profile is not None:
        actions.append(
            SetEnvironmentVariable(*profile, condition=IfCondition(value["fastdds_profile"]))
        )

    # Typed, because launch reads untyped values as YAML: model:=1 would become a number.
    texts = {name: ParameterValue(value[name], value_type=str) for name in TEXTS}
    flags = {name: ParameterValue(value[name], value_type=bool) for name in FLAGS}
    actions.append(
        LifecycleNode(
            package="kdc_ros",
            executable="kdc_node",
            namespace=value["namespace"],
            name=value["name"],
            parameters=[value["params_file"], {**texts, **flags}],
            remappings=[("image", value["image"])],
            ros_arguments=["--log-level", value["log_level"]],
            # The node sets the profile by itself where nobody did; false has to reach it.
            additional_env={env.PROFILE_SWITCH: value["fastdds_profile"]},
            output="screen",
            respawn=value["respawn"],
            respawn_delay=2.0,
        )
    )
    return LaunchDescription(actions)
