"""Says of XML documents whether a schema holds: run by an interpreter that has xmlschema. python validate.py XSD FILE..."""

import sys

import xmlschema

schema = xmlschema.XMLSchema10(sys.argv[1])
for name in sys.argv[2:]:
    errors = [f"{error.path}: {error.reason}" for error in schema.iter_errors(name)]
    sys.stdout.write(f"{name} {' | '.join(errors) or 'valid'}\n")
