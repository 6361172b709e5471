# Sourced: the system's own Mesa, on the processor even where there is a GPU.

# The file that tells the Vulkan loader about it, or nothing.
stock_driver() {
  compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' | head -n 1 || true
}

use_stock_mesa() {
  local driver
  driver=$(stock_driver)
  if [ -z "$driver" ]; then
    need_packages mesa-vulkan-drivers libvulkan1
    driver=$(stock_driver)
  fi
  [ -n "$driver" ] || not_run "mesa-vulkan-drivers has no lvp_icd*.json, the software driver"
  # The second is what loaders before 1.3.207 read.
  export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver
}
