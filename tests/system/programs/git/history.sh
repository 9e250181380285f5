# SPDX-License-Identifier: BSD-2-Clause
# A repository's life: commits, branches, merges, rebases, stashes, and what looks at them.
export GIT_AUTHOR_NAME=Ann GIT_AUTHOR_EMAIL=ann@localhost GIT_COMMITTER_NAME=Bob GIT_COMMITTER_EMAIL=bob@localhost
export GIT_AUTHOR_DATE='1767225600 +0000' GIT_COMMITTER_DATE='1767229200 +0100' GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
git init -q -b main work && cd work || exit 1
git config core.abbrev 12
mkdir folder; seq 200 >numbers; echo text >folder/text; printf 'a\0b' >binary; ln -s numbers link; echo '*.o' >.gitignore
touch ignored.o; git add . && git commit -q -m 'The first' && git rev-parse HEAD HEAD^{tree}
sed_() { while IFS= read -r line; do if [ "$line" = "$1" ]; then echo "$2"; else echo "$line"; fi; done; }
sed_ 50 fifty <numbers >new; mv new numbers; git mv folder/text folder/moved; git rm -q binary; git status --short
git diff HEAD --stat; git diff -U1 HEAD -- numbers; git commit -q -a -m 'Change some'; git show --format='%h %an %cn %at %s' --name-status
git checkout -q -b side HEAD~; sed_ 150 'one hundred and fifty' <numbers >new; mv new numbers; git commit -q -a -m 'On the side'
git checkout -q main; git merge -q --no-edit side && git log --graph --format='%h %s%d'; git show main:numbers | sha256sum
git checkout -q -b other HEAD~; sed_ fifty FIFTY <numbers >new; mv new numbers; git commit -q -a -m 'Conflicting'
git checkout -q main; sed_ fifty Fifty <numbers >new; mv new numbers; git commit -q -a -m 'As well'
git merge other >/dev/null; echo $?; git ls-files -u | cut -d ' ' -f 1,3; git diff --name-only --diff-filter=U; git merge --abort
git checkout -q side; for i in 1 2 3; do echo $i >side$i; git add .; git commit -q -m "Side $i"; done
git rebase -q main && git log --format='%H %s' -n 4; git tag -a -m 'A tag' v1; git describe; git cat-file -p v1
echo changed >side1; git stash -q; cat side1; git stash list | cut -c 1-9; git stash pop -q; cat side1; git checkout -q side1
git cherry-pick -x main~2 >/dev/null 2>&1; echo $?; git cherry-pick --abort 2>/dev/null; git reset -q --hard main; git reflog | wc -l
git blame -s -L 49,51 numbers; git grep -n '^15[0-9]$' | head -n 2; git log -S FIFTY --format=%s --all; git shortlog -s HEAD
git bisect start main "$(git rev-list --max-parents=0 main)"; git bisect run test ! -e folder/moved >/dev/null; git show -s --format=%s refs/bisect/bad
git bisect reset 2>/dev/null
git archive --format=tar v1 folder | sha256sum; git format-patch -q -o ../patches main..v1 && ls ../patches
git checkout -q -b applied main; git am -q ../patches/* && git diff applied v1 --stat; git apply --check ../patches/0001*; echo $?
git worktree add ../second side 2>/dev/null; git worktree list | wc -l
git gc -q --prune=now && git fsck --strict 2>&1; git count-objects -v | head -n 1; ls .git/objects/pack/*.pack | wc -l
printf '#!/bin/sh\necho "a hook refuses $(uname -s)"; exit 1\n' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit
git commit --allow-empty -m refused 2>&1; echo $?
git nonsense 2>&1 | head -n 1; git log no-such-ref 2>&1 | head -n 1; exit 3
