#!/usr/bin/env bash
# Runs an Apache Kafka (KRaft, one broker) on loopback until Ctrl-C, for trying things out:
#
#     tests/kafka/start.sh [FOLDER [PORT]]       default: ${XDG_CACHE_HOME:-~/.cache}/tallygrid/kafka/broker, port 9092
#
# Prints what TALLY_KAFKA is to be when the broker answers. Its log stays in FOLDER; a second start goes on with it.
# No TLS, no login, one copy of each message: docs/kafka.md says what a real one has.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tallygrid/kafka
folder=${1:-$cache/broker}
port=${2:-9092}
controller=$((port + 1))

bash "$here/install.sh" >&2
for each in "$port" "$controller"; do
  if (: <"/dev/tcp/127.0.0.1/$each") 2>/dev/null; then
    echo "port $each is taken: $0 FOLDER PORT" >&2
    exit 1
  fi
done
mkdir -p "$folder"
cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
log.dirs=$folder/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES

java=(java -Xmx512m -cp "$cache/libs/*")
if [[ ! -e $folder/log/meta.properties ]]; then
  "${java[@]}" kafka.tools.StorageTool format -c "$folder/server.properties" \
    -t "$("${java[@]}" kafka.tools.StorageTool random-uuid)" >"$folder/output"
fi

"${java[@]}" kafka.Kafka "$folder/server.properties" >>"$folder/output" 2>&1 &
broker=$!
trap 'kill "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true' EXIT
until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 "$broker" 2>/dev/null || { tail -n 20 "$folder/output" >&2; exit 1; }
  sleep 0.1
done
echo "export TALLY_KAFKA=127.0.0.1:$port      # then: tally kafka prepare; Ctrl-C stops this broker"
wait "$broker"
