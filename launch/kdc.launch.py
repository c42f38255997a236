"""Start the kdc node: ``ros2 launch kdc_ros kdc.launch.py image:=/camera/image_raw``.

Arguments and their defaults: ``ros2 launch kdc_ros kdc.launch.py --show-args``. Plain actions
only, so that Humble to Kilted load it alike.
"""

import os

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from kdc_ros import env

# Parameters of the node that go over params_file where they are given, with their types (launch
# reads untyped values as YAML, and model:=1 would become a number) and descriptions.
PARAMETERS = {
    "autostart": (bool, "configure and activate by itself"),
    "model": (str, "kdc_light or a file"),
    "device": (str, "auto, cpu, cuda or cuda:N"),
    "runtime": (str, "what executes the model"),
    "use_sim_time": (bool, "take the time from /clock"),
    "image_transport": (str, "raw or compressed"),
    "enable_3d": (bool, "people in metres, by depth and camera_info"),
    "hri": (bool, "REP-155's topics"),
    "view": (bool, "a live view for browsers"),
}


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node and the arguments that shape it."""
    arguments = {  # name: (default, description)
        "image": ("image", "topic of the camera images"),
        "depth": ("depth", "topic of depth registered to the images; used with enable_3d"),
        "camera_info": ("camera_info", "topic of the images' camera_info; used with enable_3d"),
        "namespace": ("", "namespace of the node, for several cameras"),
        "name": ("kdc", "name of the node"),
        "params_file": (str(env.find_config("kdc.yaml")), "parameters of the node"),
        **{
            name: ("", f"{description}; empty: as in params_file")
            for name, (_, description) in PARAMETERS.items()
        },
        "fastdds_profile": (
            os.environ.get(env.PROFILE_SWITCH, "true"),
            "use config/fastdds_shm.xml, without which images get lost, unless the environment "
            "names another profile or transport; the camera needs it too",
        ),
        "respawn": ("false", "start the node again whenever it ends, until the launch does"),
        "log_level": ("info", "debug, info, warn, error or fatal"),
    }
    actions: list[Action] = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in arguments.items()
    ]
    # For all that this launch starts, not for the node alone: the sender of the images counts.
    profile = env.profile_setting()
    if profile is not None:
        switch = IfCondition(LaunchConfiguration("fastdds_profile"))
        actions.append(SetEnvironmentVariable(*profile, condition=switch))
    # Which parameters are given is known only when the launch runs.
    return LaunchDescription([*actions, OpaqueFunction(function=start_node)])


def start_node(context: LaunchContext) -> list[Action]:
    """The node, with params_file and the parameters that were given as arguments."""
    value = LaunchConfiguration
    given = {
        name: ParameterValue(value(name), value_type=python_type)
        for name, (python_type, _) in PARAMETERS.items()
        if value(name).perform(context)
    }
    node = LifecycleNode(
        package="kdc_ros",
        executable="kdc_node",
        namespace=value("namespace"),
        name=value("name"),
        parameters=[value("params_file"), *([given] if given else [])],
        remappings=[(topic, value(topic)) for topic in ("image", "depth", "camera_info")],
        ros_arguments=["--log-level", value("log_level")],
        # The node sets the profile by itself where nobody did; false has to reach it.
        additional_env={env.PROFILE_SWITCH: value("fastdds_profile")},
        output="screen",
        respawn=value("respawn"),
        respawn_delay=2.0,
    )
    return [node]
