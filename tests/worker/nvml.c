/* Stands in for NVIDIA's management library: two GPUs, the second of which lacks sensors. */
#include <stdio.h>

typedef int Status;
typedef struct { int index; } *Device;
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };

static struct { int index; } devices[2] = {{0}, {1}};

Status nvmlInitWithFlags(unsigned flags) { return flags ? INVALID_ARGUMENT : SUCCESS; }
Status nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(Status status) { return status == NOT_SUPPORTED ? "Not Supported" : "Other"; }

Status nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return SUCCESS;
}

Status nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    if (index > 1) return INVALID_ARGUMENT;
    *device = (Device)&devices[index];
    return SUCCESS;
}

Status nvmlDeviceGetName(Device device, char *name, unsigned length) {
    snprintf(name, length, "Stand-in %d", device->index);
    return SUCCESS;
}

Status nvmlDeviceGetUUID(Device device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-0000-%d", device->index);
    return SUCCESS;
}

Status nvmlDeviceGetMemoryInfo(Device device, struct { unsigned long long total, free, used; } *memory) {
    memory->total = 80ULL << 30;
    memory->used = (3ULL + device->index) << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

Status nvmlDeviceGetUtilizationRates(Device device, struct { unsigned gpu, memory; } *rates) {
    rates->gpu = device->index ? 0 : 75;
    rates->memory = 10;
    return SUCCESS;
}

Status nvmlDeviceGetTemperature(Device device, int sensor, unsigned *celsius) {
    if (device->index) return NOT_SUPPORTED;
    *celsius = sensor == 0 ? 61 : 0;
    return SUCCESS;
}

Status nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts) {
    if (device->index) return NOT_SUPPORTED;
    *milliwatts = 312500;
    return SUCCESS;
}

/* nvmlDeviceGetTotalEnergyConsumption is missing, as in an older driver. */
