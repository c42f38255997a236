"""The ROS 2 side: one lifecycle node that feeds camera images to kdc_core.

As a frame goes: `main` and `node` (process, states), `parameters`; `image_input` and `depth` (what
is subscribed to); `loaded` and `model` (what configure loads); `worker` and `processing` (the
threads that work on frames); `converter` (`images`, `compressed`, `bridge`), `region`, `lifting`;
`outputs` and `outputs_3d` (`messages`, `tables`, `vision`, `hri`, `markers`, `publishers`), and
`live_view`;
`health` and `diagnostics`. Clocks are in `sim_time`, `timers` and `stamps`, what the process needs
around it in `env` and `sharing`. Beside the node: `bag`, `bag_run` and `bag_files` (`kdc bag`),
`echo` and `people_table` (`kdc echo`), and what tries it from outside: `camera`, `stream`,
`stand_in`, `bench`, `soak`, `demo`, `bridge_trial`.
"""
