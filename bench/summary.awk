# Medians over rounds, and per-round ratios to bare pingora and to nginx as median (min-max).
# Input: upstream connections round target rps cpu p50 p99.

function sorted(values, count,    i, j, held) {
    for (i = 2; i <= count; i++) {
        held = values[i]
        for (j = i - 1; j >= 1 && values[j] > held; j--) values[j + 1] = values[j]
        values[j + 1] = held
    }
}

function median(values, count) {
    sorted(values, count)
    return count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
}

function middle(group, target, field,    round, values, count) {
    for (round = 1; round <= rounds; round++)
        if ((group, target, round) in data) values[++count] = cell(group, target, round, field)
    return median(values, count)
}

function cell(group, target, round, field,    fields) {
    split(data[group, target, round], fields, " ")
    return fields[field]
}

function ratio(group, target, base, field,    round, values, count, mid, own, other) {
    for (round = 1; round <= rounds; round++) {
        if (!((group, target, round) in data) || !((group, base, round) in data)) continue
        own = cell(group, target, round, field)
        other = cell(group, base, round, field)
        if (other > 0) values[++count] = own / other
    }
    if (!count) return "-"
    mid = median(values, count)
    return sprintf("%.2f (%.2f-%.2f)", mid, values[1], values[count])
}

{
    group = $1 " " $2
    if (!(group in seen)) { seen[group] = 1; groups[++group_count] = group }
    if (!($4 in known)) { known[$4] = 1 }
    data[group, $4, $3] = $5 " " $6 " " $7 " " $8
    if ($3 > rounds) rounds = $3
}

END {
    order_count = split("direct bare doorward nginx nginx-auth nginx-cached", order, " ")
    for (g = 1; g <= group_count; g++) {
        split(groups[g], name, " ")
        printf "\nupstream over %s, %d connection%s, %d rounds\n", name[1], name[2], (name[2] > 1) ? "s" : "", rounds
        printf "%-13s %8s %8s %7s %7s  %-18s %-18s %-18s %-18s\n", "target", "rps", "CPU us", "p50 us", "p99 us", \
            "rps / bare", "CPU / bare", "rps / nginx", "CPU / nginx"
        for (t = 1; t <= order_count; t++) {
            target = order[t]
            if (!(target in known)) continue
            proxy = target != "direct"
            printf "%-13s %8.0f %8s %7.0f %7.0f  %-18s %-18s %-18s %-18s\n", target, middle(groups[g], target, 1), \
                proxy ? sprintf("%.1f", middle(groups[g], target, 2)) : "-", middle(groups[g], target, 3), \
                middle(groups[g], target, 4), ratio(groups[g], target, "bare", 1), \
                proxy ? ratio(groups[g], target, "bare", 2) : "-", ratio(groups[g], target, "nginx", 1), \
                proxy ? ratio(groups[g], target, "nginx", 2) : "-"
        }
    }
}
