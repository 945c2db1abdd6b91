# One look at the tunnel: what it says now, against what was seen before, becomes events and figures.
#
# Reads the reduced dump (tunnel-watch: without secrets), and the files devices, known and state; writes out.events,
# out.metrics, out.state and out.known. Knows no clock but its variables: now (seconds since 1970) and stamp (the same in
# words) are what is told, up (seconds since boot) is what silence is measured by, so a clock that jumps moves nobody.
# No key comes out of it: a device is known by its fingerprint, a hash of its key.

BEGIN {
    SILENT = 180 # WireGuard itself gives up a session after so many seconds
    while ((got = getline line < devices) > 0) {
        if (line ~ /^#/ || split(line, word, " ") != 5) continue
        device = word[2]
        order[++count] = device
        of_key[word[1]] = device
        user[device] = word[3]; name[device] = word[4]; address[device] = word[5]
    }
    if (got < 0) {
        print "tunnel-watch: " devices " cannot be read" > "/dev/stderr"
        failed = 1
        exit 1
    }
    while ((getline line < known) > 0) seen_ever[line] = 1
    while ((getline line < state) > 0) {
        split(line, word, " ")
        if (word[1] == "told") told[word[2]] = word[3]
        if (word[1] == "moved") moved[word[2] " " word[3]] = word[4]
        if (word[1] == "device") {
            device = word[2]
            before[device] = 1
            last_user[device] = word[3]; last_name[device] = word[4]; last_address[device] = word[5]
            endpoint[device] = word[6]; handshake[device] = word[7]; heard[device] = word[8]; here[device] = word[9]
        }
    }
    printf "" > (out ".events"); printf "" > (out ".known"); printf "" > (out ".state"); printf "" > (out ".metrics")
}

$1 == "answers" { answers = 1 }

NF == 5 && ($1 in of_key) {
    device = of_key[$1]
    there[device] = 1
    from[device] = $2; shaken[device] = $3; received[device] = $4; sent[device] = $5
}

END {
    if (failed) exit 1
    for (i = 1; i <= count; i++) look_at(order[i])
    for (device in before) if (!(device in user)) leave(device)
    write_figures()
    write_state()
}

function look_at(device,    age) {
    if (!(device in seen_ever)) {
        print device > (out ".known")
        if (!(device in before)) tell("peer-new", device, "")
    }
    if (!(device in before)) {
        endpoint[device] = "(none)"; handshake[device] = 0; heard[device] = 0; here[device] = 0
    }
    if (!there[device]) return
    if (shaken[device] > 0 && shaken[device] != handshake[device]) {
        # Only a first look has to ask the clock how long ago that was.
        age = device in before ? 0 : now - shaken[device]
        heard[device] = up - (age > 0 ? age : 0)
    }
    handshake[device] = shaken[device]
    silent = handshake[device] == 0 || up - heard[device] > SILENT
    was = endpoint[device]
    if (from[device] != "(none)") endpoint[device] = from[device]
    if (!here[device] && !silent) {
        here[device] = 1
        tell("peer-came", device, endpoint[device])
    } else if (here[device] && silent) {
        here[device] = 0
        tell("peer-went", device, endpoint[device])
    } else if (here[device] && place(endpoint[device]) != place(was)) {
        moved[user[device] " " name[device]]++
        tell("peer-roamed", device, endpoint[device])
    }
}

# A router gives a device another port whenever it likes; only another address is another place.
function place(of) {
    sub(/:[0-9]+$/, "", of)
    return of
}

# The config knows it no more: its last name is that of the state.
function leave(device) {
    user[device] = last_user[device]; name[device] = last_name[device]; address[device] = last_address[device]
    if (here[device]) tell("peer-went", device, endpoint[device])
}

function tell(event, device, outside) {
    told[event]++
    gsub(/[^0-9A-Za-z.:%_\[\]-]/, "", outside)
    printf "{\"time\":\"%s\",\"event\":\"%s\",\"user\":\"%s\",\"device\":\"%s\",\"address\":\"%s\",\"endpoint\":\"%s\"}\n", \
        stamp, event, user[device], name[device], address[device], outside > (out ".events")
}

function write_state(    i, device, pair) {
    for (i = 1; i <= count; i++) {
        device = order[i]
        print "device", device, user[device], name[device], address[device], endpoint[device], handshake[device], \
            heard[device], here[device] > (out ".state")
    }
    for (event in told) print "told", event, told[event] > (out ".state")
    for (pair in moved) if (pair in labels) print "moved", pair, moved[pair] + 0 > (out ".state")
}

# Of a device with two keys, as while they are renewed, one series: the later handshake, the sum of the rest.
function write_figures(    i, device, pair) {
    figure("fortress_tunnel_up", "gauge", "Does the tunnel's interface answer?")
    value("", answers + 0)
    for (i = 1; i <= count; i++) {
        device = order[i]
        pair = user[device] " " name[device]
        if (!(pair in labels)) {
            labels[pair] = "{user=\"" user[device] "\",device=\"" name[device] "\"}"
            pairs[++several] = pair
        }
        if (handshake[device] > last[pair]) last[pair] = handshake[device]
        down[pair] += received[device]; away[pair] += sent[device]
    }
    figure("fortress_peer_last_handshake_timestamp_seconds", "gauge", "Latest handshake; 0 for none since the start.")
    for (i = 1; i <= several; i++) value(labels[pairs[i]], last[pairs[i]])
    if (answers) {
        figure("fortress_peer_received_bytes_total", "counter", "Bytes from the device, since the start of the tunnel.")
        for (i = 1; i <= several; i++) value(labels[pairs[i]], down[pairs[i]])
        figure("fortress_peer_sent_bytes_total", "counter", "Bytes to the device, since the start of the tunnel.")
        for (i = 1; i <= several; i++) value(labels[pairs[i]], away[pairs[i]])
    }
    figure("fortress_peer_endpoint_changes_total", "counter", "Times that it came from another address while here.")
    for (i = 1; i <= several; i++) value(labels[pairs[i]], moved[pairs[i]])
    figure("fortress_tunnel_events_total", "counter", "Lines written to events.json.")
    kinds = split("peer-came peer-went peer-roamed peer-new", kind, " ")
    for (i = 1; i <= kinds; i++) value("{event=\"" kind[i] "\"}", told[kind[i]])
}

function figure(metric, type, help) {
    current = metric
    printf "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type > (out ".metrics")
}

function value(its_labels, number) {
    printf "%s%s %.0f\n", current, its_labels, number > (out ".metrics")
}
