"""What files of unit tests take on two quiet cores, in seconds; those that take less than three are left out.

From `pytest --durations=0`. Only to tell what fits into the time of `make quick`.
"""

SECONDS = {
    "tests/unit/bundle/test_bundle.py": 9,
    "tests/unit/checks/test_commands.py": 20,
    "tests/unit/probes/test_standby.py": 10,
    "tests/unit/client/test_connection.py": 5,
    "tests/unit/plugins/test_ansible_report.py": 5,
    "tests/unit/coordination/test_deadlines.py": 34,
    "tests/unit/gateway/test_access.py": 19,
    "tests/unit/gateway/test_bad_input.py": 3,
    "tests/unit/gateway/test_legacy.py": 15,
    "tests/unit/gateway/test_machine.py": 5,
    "tests/unit/gateway/test_scenarios.py": 11,
    "tests/unit/gateway/test_systemd.py": 19,
    "tests/unit/fleet/test_contract.py": 7,
    "tests/unit/reconciler/test_compare.py": 4,
    "tests/unit/reconciler/test_legacy.py": 3,
    "tests/unit/reconciler/test_publishing.py": 4,
    "tests/unit/reconciler/test_scenarios.py": 31,
    "tests/unit/release/test_standby.py": 5,
    "tests/unit/release/test_tool.py": 9,
    "tests/unit/release/test_undo.py": 7,
    "tests/unit/strategy/test_execution.py": 16,
    "tests/unit/strategy/test_runner.py": 21,
    "tests/unit/templates/test_both_engines.py": 5,
    "tests/unit/test_fleet_machine.py": 8,
}
