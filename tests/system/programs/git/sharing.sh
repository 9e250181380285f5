# SPDX-License-Identifier: BSD-2-Clause
# Repositories that fetch from each other: processes of git's that talk through pipes, packs, and bundles.
export GIT_AUTHOR_NAME=Ann GIT_AUTHOR_EMAIL=ann@localhost GIT_COMMITTER_NAME=Bob GIT_COMMITTER_EMAIL=bob@localhost
export GIT_AUTHOR_DATE='1767225600 +0000' GIT_COMMITTER_DATE='1767229200 +0100' GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
git init -q -b main origin && cd origin || exit 1
for i in $(seq 30); do seq "$i" 400 >"file$((i % 7))"; git add .; git commit -q -m "Commit $i"; done; git rev-parse HEAD
cd ..; git clone -q --bare file://"$PWD"/origin bare; git clone -q bare clone 2>&1; git -C clone log --oneline | wc -l
cd clone; echo pushed >pushed; git add .; git commit -q -m 'Pushed'; git push -q origin HEAD:topic; cd ..
git -C bare branch --list --format='%(refname) %(objectname)'; git -C origin fetch -q ../bare topic; git -C origin rev-parse FETCH_HEAD
git clone -q --depth 3 file://"$PWD"/bare shallow; git -C shallow log --format=%s; cat shallow/.git/shallow
git -C bare bundle create -q ../bundle topic; git -C origin bundle verify -q ../bundle; git clone -q -b topic bundle unbundled
git -C unbundled rev-parse HEAD; git -C bare repack -a -d -q -f --depth 20 --window 20; git -C bare fsck --strict 2>&1
git -C bare cat-file --batch-all-objects --batch-check | sha256sum
git init -q imported
git -C clone fast-export HEAD >exported; git -C imported fast-import --quiet <exported; git -C imported log --format=%H -n 1 --all
mkdir sub; git -C sub init -q -b main; cd sub; git -c protocol.file.allow=always submodule add -q ../bare module 2>&1
git commit -q -m 'A module'; git submodule status; cat .gitmodules; git ls-files -s; cd ..
git ls-remote bare; git clone -q missing nowhere 2>&1; echo $?
