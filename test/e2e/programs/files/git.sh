# A repository with its branches, packed and cloned.
export HOME=$mine GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2001-02-03 04:05:06 +0000' GIT_COMMITTER_DATE='2001-02-03 04:05:06 +0000'
git config --global user.name dev && git config --global user.email dev@example.com && git config --global gc.autoDetach false
git init -q -b main "$shared/repo" && cd "$shared/repo"
for i in $(seq 20); do mkdir -p "d$((i % 7))"; echo "line $i" >"d$((i % 7))/f$i"; done
ln -s d1/f1 link; printf '#!/bin/sh\necho run\n' >tool; chmod +x tool
git add . && git commit -qm one
git status --short --branch
echo more >>d1/f1; chmod -x tool; rm d2/f2; touch d3/f3; echo new >'new file'
git status --short; git diff --stat
git switch -qc other; git add -A; git commit -qm two; git mv d4 e4; git commit -qm three
git switch -q main; echo main >main; git add main; git commit -qm four
git merge -q -m merged other
git log --oneline --graph --stat | cat
echo x >>main; git stash -q; git status --short; git stash pop -q; git status --short
git checkout -q -- main
git gc -q --prune=now; git count-objects -v | grep -e count -e in-pack -e packs -e garbage
git fsck --strict 2>&1
git clone -q "$shared/repo" "$mine/clone"; git clone -q "$mine/clone" "$shared/again"
diff -r --exclude .git "$shared/repo" "$mine/clone" && diff -r --exclude .git "$shared/repo" "$shared/again" && git -C "$shared/again" rev-parse HEAD
