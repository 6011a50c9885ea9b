"""What everything else stands on, and what knows no model: configs, devices, files, logs.

`config_files`, `schema`, `build` and `kinds` go from a config to checked constructors; `mesh`,
`cluster` and `processes` say which device and process does what; `checkpoint`, `weights` and
`files` write whole files or none; `cli` is what the command lines share, `signals` what ends them;
`metrics_writer`, `progress` and `pictures` are what people see; `limits` and `versions` are what a
run needs and is made with.
"""

VERSION = "0.1.0"  # of this package; here, as this file imports nothing
