"""The program put together: the only module that knows every concrete class."""
