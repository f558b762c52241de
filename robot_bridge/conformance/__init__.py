"""What every driver must do, as pytest classes that a driver's own tests subclass.

A package with a driver of its own writes::

    from robot_bridge.conformance.arm import ArmContract

    class TestMyArm(ArmContract):
        @pytest.fixture
        def open_arm(self): ...

and runs pytest, on a simulated controller or, with a hand on the button, on the real one. pytest is needed only then.
"""
