# Packages of many modules, of Python and of Node, imported from where they lie.
unset PYTHONDONTWRITEBYTECODE
mkdir -p "$shared/py/pack" && cd "$shared/py/pack"
echo 'value = 0' >__init__.py
for i in $(seq 200); do echo "from . import value as before; import os; value = $i; here = os.path.dirname(__file__)" >"m$i.py"; done
cat >"$shared/py/main.py" <<'EOF'
import importlib, os, sys
import pack
print(sum(importlib.import_module("pack.m%d" % i).value for i in range(1, 201)), pack.m7.here == os.path.dirname(pack.__file__))
try:
    import pack.m201
except ImportError as e:
    print(e)
EOF
python3 "$shared/py/main.py"; ls "$shared/py/pack/__pycache__" | wc -l
python3 "$shared/py/main.py"
python3 -m zipfile -c "$shared/py/pack.zip" "$shared/py/pack/" && PYTHONPATH=$shared/py/pack.zip python3 -c 'import pack.m9; print(pack.m9.value)'
mkdir -p "$shared/node/node_modules/pack/lib" && cd "$shared/node"
echo '{"name": "pack", "version": "1.2.3", "main": "lib/index.js"}' >node_modules/pack/package.json
for i in $(seq 60); do echo "exports.value = $i" >"node_modules/pack/lib/m$i.js"; done
echo 'for (let i = 1; i <= 60; i++) exports["m" + i] = require("./m" + i)' >node_modules/pack/lib/index.js
echo 'const p = require("pack"), v = require("pack/package.json").version; console.log(v, Object.values(p).reduce((s, m) => s + m.value, 0), require.resolve("pack").endsWith("lib/index.js"))' >main.js
node main.js
