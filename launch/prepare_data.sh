#!/usr/bin/env bash
# Turns ImageNet, CelebA-HQ, FFHQ or images of your own into array_record files, which training reads on one machine and
# on a pod, and copies them to a bucket. Each of these is licensed by its owners and has to be had from them first:
#   bash launch/prepare_data.sh imagenet SOURCE DEST    https://image-net.org, after logging in. SOURCE is one of
#       a folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar: tfds writes imagenet2012, for which TensorFlow
#           goes into an environment of its own, .venv-tfds
#       a folder with train/n01440764/*.JPEG ... and val/n01440764/*.JPEG ...
#       what tfds has written as tfrecord, .../imagenet2012/5.1.0, or TFRecord files of image/encoded, image/class/label
#   bash launch/prepare_data.sh celebahq SOURCE DEST    https://github.com/tkarras/progressive_growing_of_gans. SOURCE is
#       a folder with data256x256.tar, as tfds asks for it; of 30,000 images; or a file celebahq-r08.tfrecords
#   bash launch/prepare_data.sh ffhq SOURCE DEST        https://github.com/NVlabs/ffhq-dataset. SOURCE is
#       the folder images1024x1024 (or thumbnails128x128), or a file such as ffhq-r10.tfrecords
#   bash launch/prepare_data.sh NAME SOURCE DEST        a folder of images, or TFRecord files, of any other NAME
# DEST becomes config.dataset.data_dir. The last lines say which keys of the config read the data.
#   --bucket=gs://BUCKET/DIR     copy the data set there, too; nothing that lies there is deleted
#   --dry_run                    print the commands
#   --size=256, ...              other flags but --name go to the converter, from_folder or from_tfrecord: docs/data.md
# The same command again goes on, or finds it done. SOURCE is only read, and takes as much room again in DEST, twice that
# while it is written.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

explain "$@"
take "bucket= name= dry_run" "$@"
[ ${#rest[@]} -ge 3 ] || fail "expected: bash launch/prepare_data.sh imagenet|celebahq|ffhq|NAME SOURCE DEST, got ${rest[*]:-nothing}"
what=${rest[0]} source=${rest[1]} dest=${rest[2]}
more=(${rest[@]+"${rest[@]:3}"}) # flags of the converter
[[ $what =~ ^[a-z][a-z0-9_]*$ ]] || fail "expected a name of small letters, digits and _, got $what"
[ -z "$name" ] || fail "expected no --name here, got --name=$name: the first word names the data set, now $what"
[ -e "$source" ] || fail "there is no $source: give the folder or the file that the data come in"
[[ $dest != gs://* ]] || fail "expected a folder as DEST, got $dest: array_record is written here first; then --bucket=$dest"
[ -z "$bucket" ] || [[ $bucket == gs://?* ]] || fail "expected --bucket=gs://BUCKET/DIR, got $bucket"
if [ -n "$bucket" ]; then
  if command -v gcloud >/dev/null; then
    copy=(gcloud storage rsync --recursive)
  else
    needs gsutil "install the Google Cloud CLI and log in"
    copy=(gsutil -m rsync -r)
  fi
fi

# Which files SOURCE has decides the way.
[ -n "$(find -L "$source" -type f | head -n 1)" ] || fail "there are no files in $source: give the folder that the data come in"

# Prints a file in a folder of its class, SOURCE/CLASS or SOURCE/train/CLASS, if there is one.
of_a_class() {
  local parent=$source
  [ ! -d "$source/train" ] || parent=$source/train
  find -L "$parent" -mindepth 2 -type f | head -n 1
}

has() { compgen -G "$1" >/dev/null; }

# build NAME: tfds' own builder, which needs TensorFlow, in an environment that nothing else uses.
build() {
  local venv=${EVQGAN_TFDS_VENV:-$root/.venv-tfds} base version
  base=$(find_python) || exit 2
  version=$(sed -n 's/^tensorflow-datasets==//p' "$root/requirements.txt")
  if [ ! -f "$venv/.evqgan" ]; then
    say "installing TensorFlow and tfds $version into $venv; some minutes, 2.4 GB"
    run "$base" -m venv "$venv"
    run "$venv/bin/python" -m pip install --quiet "tensorflow-datasets==$version" tensorflow-cpu array_record
    run touch "$venv/.evqgan"
  fi
  run "$venv/bin/tfds" build "$1" --file_format=array_record \
    --manual_dir="$source" --data_dir="$dest"
  made=${1%%/*} keys="--config.dataset.data_dir="
}

# convert MODULE FLAGS...: a converter of ours.
convert() {
  local module=$1
  shift
  environment requirements.txt
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  run "$python" -P -m "evqgan.data.$module" "$source" "$dest" "$@" ${more[@]+"${more[@]}"}
}

# The keys that replace a config's own: which name, and of faces which images are held out.
faces() {
  keys="--config.dataset.folder= --config.dataset.name=$what"
  keys+=" --config.dataset.train='train[:$1]' --config.dataset.validation='train[$1:]' --config.dataset.data_dir="
}

made=$what keys="--config.dataset.name=$what --config.dataset.data_dir="
case $what in
  ffhq) faces 60000 ;;
  celebahq) faces 25000 ;;
esac
if [ -f "$source/dataset_info.json" ]; then
  say "converting what tfds has written in $source"
  convert from_tfrecord
  made=$(sed -n 's/^  "name": "\([a-z0-9_]*\)",\{0,1\}$/\1/p' "$source/dataset_info.json" | head -n 1)
  keys="--config.dataset.data_dir="
elif [ "$what" = imagenet ] && has "$source/ILSVRC2012_img_train.tar"; then
  has "$source/ILSVRC2012_img_val.tar" || fail "expected ILSVRC2012_img_val.tar beside ILSVRC2012_img_train.tar in $source"
  build imagenet2012
elif [ "$what" = celebahq ] && has "$source/data*x*.tar"; then
  build celeb_a_hq/256
elif [ -f "$source" ] || has "$source/*tfrecord*" || has "$source/*-of-*"; then
  say "converting the TFRecord files of $source"
  labels=()
  [ "$what" != imagenet ] || labels=(--image_key=image/encoded --label_key=image/class/label)
  convert from_tfrecord --name="$what" ${labels[@]+"${labels[@]}"}
else
  if [ "$what" = imagenet ] && [ -z "$(of_a_class)" ]; then
    fail "expected folders of classes in $source, such as train/n01440764, found none: training would take all images for one class; give another NAME than imagenet for images without classes"
  fi
  say "converting the images in $source"
  sorted=()
  case $what in ffhq | celebahq) sorted=(--sorted) ;; esac
  convert from_folder --name="$what" ${sorted[@]+"${sorted[@]}"}
fi
place=$dest
if [ -n "$bucket" ]; then
  say "copying $dest/$made to $bucket/$made, where it is billed as storage until you delete it"
  run "${copy[@]}" "$dest/$made" "$bucket/$made"
  place=$bucket
fi
say "training reads it by: $keys$(printf %q "$place")"
