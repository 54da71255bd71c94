// A flower of glossy seeds that breathes: frame K of 60 is at clock = K, and the last leads to the first.
#version 3.7;
#include "colors.inc"

global_settings { assumed_gamma 1.0 max_trace_level 6 }

#declare Turn = clock / 60;
#declare Seeds = 233;
#declare Golden = 137.50776405;

camera {
    location <0, 5.6, -6.6>
    look_at <0, 0.25, 0>
    angle 47
    right x * image_width / image_height
}

sky_sphere {
    pigment {
        gradient y
        color_map {
            [0.0 rgb <0.95, 0.48, 0.22>]
            [0.25 rgb <0.55, 0.30, 0.48>]
            [0.7 rgb <0.05, 0.07, 0.20>]
        }
    }
}

light_source {
    <-6, 9, -5> rgb <1.0, 0.92, 0.80> * 1.15
    area_light <1.6, 0, 0>, <0, 0, 1.6>, 3, 3 adaptive 0 jitter circular orient
}
light_source { <7, 4, 6> rgb <0.25, 0.35, 0.6> shadowless }

plane {
    y, 0
    pigment { rgb <0.018, 0.022, 0.05> }
    finish { ambient 0 diffuse 0.7 specular 0.4 roughness 0.02 reflection { 0.12, 0.5 fresnel off } }
    normal { ripples 0.035 frequency 2.2 phase -3 * Turn }
}

#for (Seed, 1, Seeds)
    #local Along = sqrt(Seed / Seeds);
    #local Wave = sin(2 * pi * (1.6 * Along - Turn));
    #local Radius = 0.15 * (1 + 0.12 * Wave) * (0.85 + 0.25 * Along);
    #local Height = 0.2 + 1.5 * (1 - Along * Along) + 0.26 * Wave * (0.35 + 0.65 * Along) + 0.26;
    #local Hue = mod(318 + 118 * Along + 16 * Wave, 360);
    sphere {
        <2.75 * Along, Height, 0>, Radius
        rotate y * (Golden * Seed + 6 * Wave)
        pigment { color CHSL2RGB(<Hue, 0.90, 0.50, 0, 0>) }
        finish { ambient 0.04 diffuse 0.8 specular 0.8 roughness 0.01 reflection { 0.03, 0.28 } }
    }
#end
