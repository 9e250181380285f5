// SPDX-License-Identifier: BSD-2-Clause
// Who runs the guest at a handover, for Spin. handover.md says which line of the code each part
// stands for, what is left out, and why. One statement is one step that others can see.
//
// The old monitor, the new one and the supervisor; each monitor may be killed between any two steps,
// and every wait may run out of time. What is checked: never do two run the guest; when all is over
// one does. MUTANT_... break the protocol in ways that the checks must find.

// The status page's word, from what it was when the handover began.
#define BEFORE 0
#define TAKE 1
#define KEEP 2
#define REVOKE 3
byte owner = BEFORE;

// Messages, none ever lost but with their reader; and what was closed is noticed.
mtype = { HELLO, READY, WARM, WARMED, STATE, RUN, REFUSED };
chan to_new = [8] of { mtype };
chan to_old = [8] of { mtype };

bool old_lives = true, new_lives = true;
bool old_runs = true, new_runs, again_runs; // the guest; again: as the supervisor has restarted it
bool old_saved;                             // what N loads is there
bool kill_old, kill_new;
bool settled;                               // the supervisor has done all that it will

#define RUNNING (old_runs + new_runs + again_runs)
#define MOVED(value, result) atomic { result = (owner == BEFORE); if :: result -> owner = value :: else fi }

// A wait ends with a message, because the other side is gone and has left none, or out of time.

proctype old() {
    mtype heard;
    bool moved;
    {
        to_new!HELLO;
        if
        :: to_old?heard
        :: !new_lives && empty(to_old) -> heard = REFUSED
        :: heard = REFUSED // out of time
        fi;
        if
        :: heard != READY -> goto take_back
        :: else
        fi;
        to_new!WARM;
        if
        :: to_old?heard
        :: !new_lives && empty(to_old) -> heard = REFUSED
        :: heard = REFUSED
        fi;
        if
        :: heard != WARMED -> goto take_back
        :: else
        fi;
#ifndef MUTANT_STATE_BEFORE_FREEZE
        old_runs = false; // frozen
#endif
        old_saved = true;
        to_new!STATE;
        if
        :: to_old?heard
        :: !new_lives && empty(to_old) -> heard = REFUSED
        :: heard = REFUSED
        fi;
        if
        :: heard == RUN -> goto retire
        :: else
        fi;
take_back:
#ifdef MUTANT_THAW_WITHOUT_MOVE
        moved = true;
#else
        MOVED(KEEP, moved);
#endif
        if
        :: moved -> old_runs = true; goto stay
        :: else -> goto retire
        fi;
retire:
        atomic { old_runs = false; old_lives = false };
stay:
        skip
    } unless { kill_old };
    if
    :: kill_old -> atomic { old_runs = false; old_lives = false }
    :: else
    fi
}

proctype new() {
    mtype heard;
    bool moved;
    {
        if
        :: to_new?heard
        :: !old_lives && empty(to_new) -> goto end
        :: goto end // out of time
        fi;
        to_old!READY;
        if
        :: to_new?heard
        :: !old_lives && empty(to_new) -> goto end
        :: goto end
        fi;
        to_old!WARMED;
        if
        :: to_new?heard
        :: !old_lives && empty(to_new) -> goto end
        :: goto end
        fi;
        if
        :: true   // loaded, the same
        :: goto end // refused
        fi;
        assert(old_saved);
#ifdef MUTANT_RUN_BEFORE_MOVE
        new_runs = true;
#endif
        MOVED(TAKE, moved);
        if
        :: moved -> new_runs = true; to_old!RUN; goto stay
        :: else
        fi;
end:
        atomic { new_lives = false; new_runs = false };
stay:
        skip
    } unless { kill_new };
    if
    :: kill_new -> atomic { new_runs = false; new_lives = false }
    :: else
    fi
}

// Restarts the partition when it is nobody's: its old monitor has died and it is sure that the new
// one cannot have it any more, or the new one owned it and has died.
proctype supervisor() {
    bool moved;
    do
    :: !old_lives && owner == BEFORE ->
#ifdef MUTANT_RESTART_WITHOUT_MOVE
        moved = true;
#else
        MOVED(REVOKE, moved);
#endif
        if
        :: moved -> again_runs = true; break
        :: else
        fi
    :: !old_lives && owner == KEEP -> again_runs = true; break
    :: !new_lives && owner == TAKE -> again_runs = true; break
    :: timeout -> break // nothing will happen any more
    od;
    settled = true
}

// Either monitor is killed, at any step, or not.
proctype killer() {
    do
    :: !kill_old -> kill_old = true
    :: !kill_new -> kill_new = true
    :: break
    od
}

// Never two.
active proctype watch() {
    end:
    do
    :: atomic { RUNNING > 1 -> assert(RUNNING <= 1) }
    :: atomic { settled && RUNNING != 1 -> assert(false) }
    od
}

init {
    atomic { run old(); run new(); run supervisor(); run killer() }
}
