#!/usr/bin/env bash
# Fetches Apache Kafka by Maven, for tests and for `tests/kafka/start.sh`:
#
#     tests/kafka/install.sh [FOLDER]       default: ${XDG_CACHE_HOME:-~/.cache}/tallygrid/kafka
#
# Twenty seconds and 43 MB the first time; nothing the second time: the stamp file, written last, says that the folder
# is whole. Clones share the folder, so a lock keeps two of them apart. Broker and tools are run from its jars with
# `java -cp "FOLDER/libs/*"`; nothing is started here.
set -euo pipefail

kafka_version=4.1.0
log4j_version=2.24.3
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tallygrid/kafka}
stamp=$folder/ready-$kafka_version

mkdir -p "$folder"
exec 9>"$folder.lock"
flock 9

if [[ ! -e $stamp ]]; then
  bash "$(dirname "$0")/../../deploy/system-packages.sh" kafka
  rm -rf "$folder/libs"
  cat >"$folder/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tallygrid</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>$log4j_version</version>
    </dependency>
  </dependencies>
</project>
XML
  mvn -q -B -Dstyle.color=never -f "$folder/pom.xml" dependency:copy-dependencies -DoutputDirectory="$folder/libs"
  : >"$stamp"
fi
echo "Apache Kafka $kafka_version is in $folder"
