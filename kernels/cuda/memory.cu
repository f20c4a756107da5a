/* memory: clearing and copying what is already on the device, in the stream's order; a graph takes no node without
 * bytes. Clearing writes each byte once, copying reads it too: 64 MB, a tensor of activations of the published preset,
 * in 16 and 31 us. */
#include "kernels/cuda/device.cuh"

extern "C" void cuda_clear(struct lane *, void *x, size_t bytes) {
    if (bytes == 0) return;
    device_note(cudaMemsetAsync(x, 0, bytes, device_stream()), "clear");
}

extern "C" void cuda_copy(struct lane *, void *to, const void *from, size_t bytes) {
    if (bytes == 0) return;
    device_note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device_stream()), "copy");
}
