#!/usr/bin/env bash
# The command its users know. Run it from the project's root; flags given to it come last and win, e.g.
#   MODEL=hfl/chinese-roberta-wwm-ext CONFIG=config/default_fsdp.yaml bash train_reranker.sh --epochs 3
#   nohup bash train_reranker.sh &          # the log goes to output/NAME.log as well as to the screen
set -euo pipefail
MODEL=${MODEL:-maidalun1020/bce-reranker-base_v1}
DATASET=${DATASET:-example_data/binary_train.jsonl}
OUTPUT=${OUTPUT:-output/bce-reranker-base_v1}
CONFIG=${CONFIG:-config/xlmroberta_default_config.yaml}
LOG_WITH=${LOG_WITH-wandb}
mkdir -p "$(dirname "$OUTPUT")"

CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}" accelerate launch --config_file "$CONFIG" rerank_nb/train_reranker.py \
  --model_name_or_path "$MODEL" --dataset "$DATASET" --output_dir "$OUTPUT" --loss_type classfication \
  --batch_size 32 --lr 5e-5 --epochs 2 --num_labels 1 --log_with "$LOG_WITH" --save_on_epoch_end 1 --warmup_proportion 0.1 \
  --gradient_accumulation_steps 1 --max_len 512 "$@" 2>&1 | tee "$OUTPUT.log"
