#!/usr/bin/env bash
# Usage: search.sh LAUNCHER [arguments]: starts a search by dist.sh or slurm.sh and
# says, if it fails, how it goes on.
launch=$(cd "$(dirname "$0")" && pwd)

"$launch/$1" "${@:2}" &
# bash would leave the processes alone that it has started
for signal in HUP INT TERM; do
    trap "kill -TERM $! 2>/dev/null" "$signal"
done
wait $!
status=$?
while kill -0 $! 2>/dev/null; do  # a signal ends a wait
    wait $!
    status=$?
done
if [ "$status" -ne 0 ]; then
    echo "The search has not ended well (exit status $status); the reason is above." \
        "All that it has scored is kept, in trials.jsonl of its work dir: when the" \
        "cause is removed, the same command goes on from there." >&2
fi
exit "$status"
