# Sources here, what they include and what becomes of them there.
mkdir -p "$mine/project" "$shared/include/sub" "$shared/out" && cd "$mine/project"
for i in $(seq 5); do
	printf '#define V%d %d\n#include "sub/all.h"\n' "$i" "$i" >"$shared/include/h$i.h"
	printf '#include <h%d.h>\nint f%d(void) { return V%d + EXTRA; }\n' "$i" "$i" "$i" >"f$i.c"
done
printf '#pragma once\n#define EXTRA 10\n' >"$shared/include/sub/all.h"
printf '#include <stdio.h>\nint f1(void), f2(void), f3(void), f4(void), f5(void);\nint main(void) { return printf("%%d\\n", f1() + f2() + f3() + f4() + f5()) < 0; }\n' >main.c
cat >Makefile <<'EOF'
objects := $(patsubst %,$(OUT)/%.o,main f1 f2 f3 f4 f5)
$(OUT)/program: $(objects)
	gcc -o $@ $(objects)
$(OUT)/%.o: %.c
	@echo compiles $<
	@gcc -MMD -I $(INCLUDE) -c -o $@ $<
-include $(wildcard $(OUT)/*.d)
EOF
again() { make -j2 INCLUDE="$shared/include" OUT="$shared/out" 2>&1 | sed "s,$shared,OUT,g" | LC_ALL=C sort; "$shared/out/program"; }
again; again
sleep 0.02; touch f2.c; again
sleep 0.02; printf '#pragma once\n#define EXTRA 20\n' >"$shared/include/sub/all.h"; again
ar rcs "$shared/out/all.a" "$shared"/out/f?.o && gcc -o "$mine/linked" main.c "$shared/out/all.a" && "$mine/linked"
make OUT="$shared/out" INCLUDE="$shared/include" 2>&1 | sed "s,$shared,OUT,g"
